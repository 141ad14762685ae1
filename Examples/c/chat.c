/* A conversation in the notation of ChatML models (SmolLM2, Qwen): chat MODEL. A line is a question; end with Ctrl-D. */
#include "example.h"

#include <string.h>

static int32_t print(void *user, const vkinfer_token *token) {
  (void)user;
  fwrite(token->text, 1, token->text_length, stdout);
  return fflush(stdout);
}

static void feed(vkinfer_session *session, const char *text, uint32_t flags) {
  CHECK(vkinfer_session_feed_text(session, text, strlen(text), flags));
}

int main(int count, char **arguments) {
  vkinfer_model *model;
  vkinfer_engine *engine;
  vkinfer_session *session;
  vkinfer_generation_options options;
  char line[4096];
  if (count != 2) {
    fprintf(stderr, "usage: chat MODEL\n");
    return 2;
  }
  CHECK(vkinfer_model_open(arguments[1], &model));
  CHECK(vkinfer_engine_open(model, NULL, &engine));
  CHECK(vkinfer_session_open(engine, &session));
  CHECK(vkinfer_generation_options_default(&options, sizeof options));
  options.max_tokens = 64;
  feed(session, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n", VKINFER_PARSE_SPECIAL);
  for (;;) {
    printf("> ");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL) {
      break;
    }
    line[strcspn(line, "\n")] = 0;
    feed(session, "<|im_start|>user\n", VKINFER_PARSE_SPECIAL);
    feed(session, line, 0); /* a name of a special token in it is only text */
    feed(session, "<|im_end|>\n<|im_start|>assistant\n", VKINFER_PARSE_SPECIAL);
    /* Only what is new is computed: the engine knows the keys and values of the conversation so far. */
    CHECK(vkinfer_session_run(session, &options, print, NULL));
    feed(session, "<|im_end|>\n", VKINFER_PARSE_SPECIAL);
    printf("\n");
  }
  printf("\n");
  CHECK(vkinfer_session_close(session));
  CHECK(vkinfer_engine_close(engine));
  CHECK(vkinfer_model_close(model));
  return 0;
}
