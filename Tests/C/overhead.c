/* Generates as `vkinfer generate --json` does, and prints tokens and speed: overhead MODEL PROMPT TOKENS. */
#include "check.h"

static int32_t ignore(void *user, const vkinfer_token *token) {
  *(size_t *)user += token->text_length;
  return 0;
}

int main(int count, char **arguments) {
  EXPECT(count == 4);
  vkinfer_model *model;
  vkinfer_engine *engine;
  vkinfer_engine_options options;
  OK(vkinfer_model_open(arguments[1], &model));
  OK(vkinfer_engine_options_default(&options, sizeof options));
  size_t tokens = 0, bytes = 0;
  OK(vkinfer_tokenize(model, arguments[2], strlen(arguments[2]), VKINFER_ADD_SPECIAL, NULL, 0, &tokens));
  options.expected_prompt = (uint32_t)tokens;
  OK(vkinfer_engine_open(model, &options, &engine));
  vkinfer_session *session = open_session(engine, arguments[2]);
  vkinfer_generation_options generation = tokens_wanted(atoi(arguments[3]));
  OK(vkinfer_session_run(session, &generation, ignore, &bytes));
  vkinfer_result result = {sizeof result, 0, 0, 0, 0, 0, 0};
  OK(vkinfer_session_result(session, &result));
  printf(
      "{\"prompt_tokens\": %llu, \"generated_tokens\": %llu, \"bytes\": %zu, \"decode_tokens_per_second\": %.3f}\n",
      (unsigned long long)result.prompt_tokens, (unsigned long long)result.generated_tokens, bytes,
      (double)(result.generated_tokens - 1) / result.decode_seconds);
  OK(vkinfer_engine_close(engine));
  OK(vkinfer_model_close(model));
  return 0;
}
