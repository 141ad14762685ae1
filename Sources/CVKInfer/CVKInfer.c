#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "vkinfer.h"

static _Thread_local char last_error[1024];

void set_thread_error(const char *text, size_t length) {
  if (length >= sizeof last_error) {
    length = sizeof last_error - 1;
    // Not in the middle of a character.
    while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) {
      length -= 1;
    }
  }
  memcpy(last_error, text, length);
  last_error[length] = 0;
}

// The C library ties functions registered from a shared library to it: they run when it is unloaded, too.
void call_at_unload(void (*function)(void)) { atexit(function); }

const char *vkinfer_last_error(void) { return last_error; }

#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)
#define VERSION TEXT(VKINFER_VERSION_MAJOR) "." TEXT(VKINFER_VERSION_MINOR) "." TEXT(VKINFER_VERSION_PATCH)

#if defined(__x86_64__)
#define MACHINE "x86_64"
#elif defined(__aarch64__)
#define MACHINE "aarch64"
#else
#define MACHINE "unknown machine"
#endif

#ifdef NDEBUG
#define KIND "release"
#else
#define KIND "debug"
#endif

const char *vkinfer_version(void) { return VERSION; }

const char *vkinfer_build_info(void) { return "libvkinfer " VERSION ", " MACHINE ", " KIND ", " __VERSION__; }

const char *vkinfer_status_name(vkinfer_status status) {
  switch (status) {
#define NAME(status) \
  case status: \
    return #status;
    NAME(VKINFER_OK)
    NAME(VKINFER_DONE)
    NAME(VKINFER_TIMEOUT)
    NAME(VKINFER_ERROR_ARGUMENT)
    NAME(VKINFER_ERROR_HANDLE)
    NAME(VKINFER_ERROR_STATE)
    NAME(VKINFER_ERROR_FILE)
    NAME(VKINFER_ERROR_MODEL)
    NAME(VKINFER_ERROR_DEVICE)
    NAME(VKINFER_ERROR_MEMORY)
    NAME(VKINFER_ERROR_PROMPT)
    NAME(VKINFER_ERROR_UNSUPPORTED)
    NAME(VKINFER_ERROR_CANCELLED)
    NAME(VKINFER_ERROR_BUFFER)
    NAME(VKINFER_ERROR_INTERNAL)
  default:
    return "unknown";
  }
}
