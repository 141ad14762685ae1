#define _GNU_SOURCE
#include "CReadRing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct read_ring {
  int fd;
  uint32_t added;
  uint32_t under_way;  // handed to the system, the result not taken
  void *rings;
  size_t rings_size;
  struct io_uring_sqe *entries;
  size_t entries_size;
  uint32_t *entry_tail, *entry_array, entry_mask;
  uint32_t *result_head, *result_tail, result_mask;
  struct io_uring_cqe *results;
};

int read_ring_open(uint32_t entries, read_ring **out) {
  struct io_uring_params params;
  memset(&params, 0, sizeof params);
  int fd = (int)syscall(__NR_io_uring_setup, entries, &params);
  if (fd < 0) return errno;
  // From Linux 5.6 on, which has plain reads; both rings are one mapping there.
  uint32_t needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_RW_CUR_POS;
  if ((params.features & needed) != needed) {
    close(fd);
    return ENOSYS;
  }
  read_ring *ring = calloc(1, sizeof *ring);
  if (!ring) {
    close(fd);
    return ENOMEM;
  }
  ring->fd = fd;
  size_t entries_end = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  size_t results_end = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  ring->rings_size = entries_end > results_end ? entries_end : results_end;
  ring->entries_size = params.sq_entries * sizeof(struct io_uring_sqe);
  ring->rings =
      mmap(NULL, ring->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
  ring->entries =
      mmap(NULL, ring->entries_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
  if (ring->rings == MAP_FAILED || ring->entries == MAP_FAILED) {
    int error = errno;
    read_ring_close(ring);
    return error;
  }
  char *base = ring->rings;
  ring->entry_tail = (uint32_t *)(base + params.sq_off.tail);
  ring->entry_array = (uint32_t *)(base + params.sq_off.array);
  ring->entry_mask = *(uint32_t *)(base + params.sq_off.ring_mask);
  ring->result_head = (uint32_t *)(base + params.cq_off.head);
  ring->result_tail = (uint32_t *)(base + params.cq_off.tail);
  ring->result_mask = *(uint32_t *)(base + params.cq_off.ring_mask);
  ring->results = (struct io_uring_cqe *)(base + params.cq_off.cqes);
  *out = ring;
  return 0;
}

void read_ring_close(read_ring *ring) {
  // What is under way writes to memory that the caller may free next.
  uint64_t tag;
  int32_t result;
  while (ring->under_way > 0) {
    if (read_ring_take(ring, &tag, &result)) continue;
    if (syscall(__NR_io_uring_enter, ring->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 && errno != EINTR) break;
  }
  if (ring->rings && ring->rings != MAP_FAILED) munmap(ring->rings, ring->rings_size);
  if (ring->entries && (void *)ring->entries != MAP_FAILED) munmap(ring->entries, ring->entries_size);
  close(ring->fd);
  free(ring);
}

int read_ring_register(read_ring *ring, void *const *bases, const size_t *sizes, uint32_t count) {
  struct iovec *ranges = calloc(count ? count : 1, sizeof *ranges);
  if (!ranges) return ENOMEM;
  for (uint32_t i = 0; i < count; i++) ranges[i] = (struct iovec){.iov_base = bases[i], .iov_len = sizes[i]};
  long result = syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, ranges, count);
  int error = result < 0 ? errno : 0;
  free(ranges);
  return error;
}

void read_ring_add(
    read_ring *ring, int file, void *to, uint32_t count, uint64_t offset, int buffer, uint64_t tag) {
  // Only this thread moves the tail.
  uint32_t tail = *ring->entry_tail, index = tail & ring->entry_mask;
  struct io_uring_sqe *entry = &ring->entries[index];
  memset(entry, 0, sizeof *entry);
  entry->opcode = buffer >= 0 ? IORING_OP_READ_FIXED : IORING_OP_READ;
  entry->fd = file;
  entry->addr = (uint64_t)(uintptr_t)to;
  entry->len = count;
  entry->off = offset;
  entry->buf_index = buffer >= 0 ? (uint16_t)buffer : 0;
  entry->user_data = tag;
  ring->entry_array[index] = index;
  __atomic_store_n(ring->entry_tail, tail + 1, __ATOMIC_RELEASE);
  ring->added++;
}

int read_ring_wait(read_ring *ring) {
  int refused = 0;
  while (ring->added > 0 || ring->under_way > 0) {
    long taken = syscall(__NR_io_uring_enter, ring->fd, ring->added, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    if (taken < 0) {
      if (errno == EINTR) continue;
      if ((errno != EAGAIN && errno != EBUSY) || ++refused > 10000) return errno;
      // The system is short of memory, or wants results taken first.
      taken = 0;
      usleep(1000);
    }
    ring->added -= (uint32_t)taken;
    ring->under_way += (uint32_t)taken;
    bool has_result =
        __atomic_load_n(ring->result_tail, __ATOMIC_ACQUIRE) != *ring->result_head;
    // A signal may end the wait once entries are handed over: there is no result then.
    if (has_result) return 0;
  }
  return 0;
}

bool read_ring_take(read_ring *ring, uint64_t *tag, int32_t *result) {
  uint32_t head = *ring->result_head;
  if (head == __atomic_load_n(ring->result_tail, __ATOMIC_ACQUIRE)) return false;
  struct io_uring_cqe *entry = &ring->results[head & ring->result_mask];
  *tag = entry->user_data;
  *result = entry->res;
  __atomic_store_n(ring->result_head, head + 1, __ATOMIC_RELEASE);
  ring->under_way--;
  return true;
}

int read_open_direct(const char *path) { return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT); }
