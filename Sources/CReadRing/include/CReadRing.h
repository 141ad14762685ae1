#ifndef CREADRING_H
#define CREADRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Reads of files by Linux's io_uring, by its system calls alone: many under way for one thread. See io_uring(7).
// One thread at a time uses a ring.

typedef struct read_ring read_ring;

/// Makes a ring for so many reads at a time. Returns 0 or an error number: containers often forbid it (EPERM), old
/// kernels lack it (ENOSYS).
int read_ring_open(uint32_t entries, read_ring **ring);

/// No read may be under way.
void read_ring_close(read_ring *ring);

/// Tells the system once of the memory that reads go into, so that it need not look it up for each. Returns 0 or an
/// error number: there may be a limit on such memory.
int read_ring_register(read_ring *ring, void *const *bases, const size_t *sizes, uint32_t count);

/// Adds a read of `count` bytes at `offset`. The caller sees to it that no more than `entries` are under way.
///
/// @param buffer the registered memory that `to` is in, or -1.
/// @param tag given back with the result.
void read_ring_add(
    read_ring *ring, int file, void *to, uint32_t count, uint64_t offset, int buffer, uint64_t tag);

/// Hands what was added to the system, and waits until there is a result. Returns 0 or an error number.
int read_ring_wait(read_ring *ring);

/// Takes a result: bytes read, or a negative error number. Returns false where there is none.
bool read_ring_take(read_ring *ring, uint64_t *tag, int32_t *result);

/// Opens a file for reads of whole pages that pass the page cache by. Returns -1 with errno set where there are none.
int read_open_direct(const char *path);

#endif
