/* What the longer examples share. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <stdio.h>
#include <stdlib.h>
#include <vkinfer.h>

/* Ends the program with the library's own words when a call failed. */
#define CHECK(call) \
  do { \
    if ((call) < 0) { \
      fprintf(stderr, "error: %s: %s\n", #call, vkinfer_last_error()); \
      exit(1); \
    } \
  } while (0)

#endif
