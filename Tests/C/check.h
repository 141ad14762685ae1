/* What the test programs share: each prints what went wrong and ends with 1, or nothing and ends with 0. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vkinfer.h>

#define EXPECT(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition, vkinfer_last_error()); \
      exit(1); \
    } \
  } while (0)

/* A call that must give this very status, and an error a text. */
#define STATUS(call, wanted) \
  do { \
    vkinfer_status status_ = (call); \
    if (status_ != (wanted)) { \
      fprintf( \
          stderr, "%s:%d: %s is %s, not %s (last error: %s)\n", __FILE__, __LINE__, #call, \
          vkinfer_status_name(status_), #wanted, vkinfer_last_error()); \
      exit(1); \
    } \
    EXPECT(status_ >= 0 || vkinfer_last_error()[0] != 0); \
  } while (0)

#define OK(call) STATUS(call, VKINFER_OK)

static inline vkinfer_engine *open_engine(vkinfer_model *model, uint32_t parallel) {
  vkinfer_engine *engine = NULL;
  vkinfer_engine_options options;
  OK(vkinfer_engine_options_default(&options, sizeof options));
  options.parallel = parallel;
  options.context_length = 256;
  OK(vkinfer_engine_open(model, &options, &engine));
  return engine;
}

static inline vkinfer_session *open_session(vkinfer_engine *engine, const char *text) {
  vkinfer_session *session = NULL;
  OK(vkinfer_session_open(engine, &session));
  OK(vkinfer_session_feed_text(session, text, strlen(text), VKINFER_ADD_SPECIAL));
  return session;
}

static inline vkinfer_generation_options tokens_wanted(int32_t count) {
  vkinfer_generation_options options;
  OK(vkinfer_generation_options_default(&options, sizeof options));
  options.max_tokens = count;
  options.ignore_end = 1;
  return options;
}

#endif
