// What the Swift side of the library needs from C.
#ifndef CVKINFER_SUPPORT_H
#define CVKINFER_SUPPORT_H

#include <stddef.h>

/// Keeps the first bytes of `text` for `vkinfer_last_error`. In C, since a thread-local variable of Swift would have a
/// destructor, which must not run after the library is unloaded.
void set_thread_error(const char *_Nonnull text, size_t length);

/// Calls `function` when the process ends or the library is unloaded, before all that was registered earlier.
void call_at_unload(void (*_Nonnull function)(void));

#endif
