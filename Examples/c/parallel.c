/* Many texts at a time on one engine, served by one thread: parallel MODEL [SESSIONS [TOKENS]]. */
#include "example.h"

#include <string.h>

int main(int count, char **arguments) {
  vkinfer_model *model;
  vkinfer_engine *engine;
  vkinfer_engine_options engine_options;
  vkinfer_generation_options options;
  int sessions = count > 2 ? atoi(arguments[2]) : 64;
  if (count < 2 || sessions < 1 || sessions > 4096) {
    fprintf(stderr, "usage: parallel MODEL [SESSIONS [TOKENS]]\n");
    return 2;
  }
  CHECK(vkinfer_model_open(arguments[1], &model));
  CHECK(vkinfer_engine_options_default(&engine_options, sizeof engine_options));
  engine_options.parallel = (uint32_t)sessions;
  engine_options.context_length = 256;
  CHECK(vkinfer_engine_open(model, &engine_options, &engine));
  CHECK(vkinfer_generation_options_default(&options, sizeof options));
  options.max_tokens = count > 3 ? atoi(arguments[3]) : 16;

  for (int index = 0; index < sessions; index++) {
    vkinfer_session *session;
    char prompt[64];
    snprintf(prompt, sizeof prompt, "%d, %d, %d,", index, index + 1, index + 2);
    CHECK(vkinfer_session_open(engine, &session));
    CHECK(vkinfer_session_feed_text(session, prompt, strlen(prompt), VKINFER_ADD_SPECIAL));
    CHECK(vkinfer_session_start(session, &options));
  }
  for (;;) {
    vkinfer_session *session;
    vkinfer_token token = {sizeof token, 0, NULL, NULL, 0, 0, 0, NULL};
    int32_t tokens[256];
    char text[4096];
    size_t length;
    vkinfer_status status = vkinfer_engine_wait(engine, -1, &session);
    CHECK(status);
    if (status == VKINFER_DONE) {
      break;
    }
    CHECK(status = vkinfer_session_next(session, 0, &token));
    if (status != VKINFER_DONE) {
      continue;
    }
    CHECK(vkinfer_session_tokens(session, tokens, 256, &length));
    CHECK(vkinfer_detokenize(model, tokens, length, 0, text, sizeof text, &length));
    printf("%s\n", text);
    CHECK(vkinfer_session_close(session));
  }
  CHECK(vkinfer_engine_close(engine));
  CHECK(vkinfer_model_close(model));
  return 0;
}
