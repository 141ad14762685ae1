/* A model that is larger than the device memory it may use: streaming MODEL MEGABYTES. */
#include "example.h"

#include <string.h>

static int32_t print(void *user, const vkinfer_token *token) {
  (void)user;
  fwrite(token->text, 1, token->text_length, stdout);
  return fflush(stdout);
}

static void log_line(void *user, uint32_t level, const char *text) {
  (void)user;
  (void)level;
  fprintf(stderr, "%s\n", text);
}

int main(int count, char **arguments) {
  const char *prompt = "The capital of France is";
  vkinfer_model *model;
  vkinfer_engine *engine;
  vkinfer_session *session;
  vkinfer_engine_options options;
  vkinfer_generation_options generation;
  vkinfer_engine_info info = {0};
  if (count != 3) {
    fprintf(stderr, "usage: streaming MODEL MEGABYTES\n");
    return 2;
  }
  CHECK(vkinfer_model_open(arguments[1], &model));
  CHECK(vkinfer_engine_options_default(&options, sizeof options));
  options.context_length = 256;
  options.gpu_memory = strtoull(arguments[2], NULL, 10) * 1000000;
  options.log = log_line;
  CHECK(vkinfer_engine_open(model, &options, &engine));
  CHECK(vkinfer_session_open(engine, &session));
  CHECK(vkinfer_session_feed_text(session, prompt, strlen(prompt), VKINFER_ADD_SPECIAL));
  CHECK(vkinfer_generation_options_default(&generation, sizeof generation));
  generation.max_tokens = 12;
  CHECK(vkinfer_session_run(session, &generation, print, NULL));
  info.size = sizeof info;
  CHECK(vkinfer_engine_inspect(engine, &info));
  printf(
      "\n%.0f MB of device memory used; %.0f MB of weights stream in every step\n", (double)info.memory_peak / 1e6,
      (double)info.streamed_bytes / 1e6);
  CHECK(vkinfer_engine_close(engine));
  CHECK(vkinfer_model_close(model));
  return 0;
}
