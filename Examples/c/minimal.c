/* Continues a text: minimal MODEL [TEXT]. */
#include <stdio.h>
#include <string.h>
#include <vkinfer.h>

static int32_t print(void *user, const vkinfer_token *token) {
  (void)user;
  fwrite(token->text, 1, token->text_length, stdout);
  return fflush(stdout);
}

int main(int count, char **arguments) {
  const char *text = count > 2 ? arguments[2] : "The capital of France is";
  vkinfer_model *model = NULL;
  vkinfer_engine *engine = NULL;
  vkinfer_session *session = NULL;
  vkinfer_generation_options options;
  vkinfer_generation_options_default(&options, sizeof options);
  options.max_tokens = 12;

  int failed = vkinfer_model_open(count > 1 ? arguments[1] : "model.gguf", &model) < 0 ||
               vkinfer_engine_open(model, NULL, &engine) < 0 || vkinfer_session_open(engine, &session) < 0 ||
               vkinfer_session_feed_text(session, text, strlen(text), VKINFER_ADD_SPECIAL) < 0 ||
               vkinfer_session_run(session, &options, print, NULL) < 0;
  if (failed) {
    fprintf(stderr, "error: %s\n", vkinfer_last_error());
  } else {
    printf("\n");
  }
  vkinfer_engine_close(engine); /* its session, too */
  vkinfer_model_close(model);
  return failed;
}
