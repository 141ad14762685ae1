/* Whatever is handed over wrongly is an error, and nothing crashes: arguments MODEL. */
#include <math.h>
#include "check.h"

#define WRONG_HANDLES(type, name, call) \
  do { \
    type *name = NULL; \
    STATUS(call, VKINFER_ERROR_HANDLE); \
    for (int bit = 0; bit < 64; bit++) { \
      name = (type *)(uintptr_t)(1ull << bit); \
      STATUS(call, VKINFER_ERROR_HANDLE); \
      name = (type *)~(uintptr_t)(1ull << bit); \
      STATUS(call, VKINFER_ERROR_HANDLE); \
    } \
    name = (type *)&local; \
    STATUS(call, VKINFER_ERROR_HANDLE); \
    name = (type *)model; \
    if (sizeof(#type) != sizeof("vkinfer_model")) STATUS(call, VKINFER_ERROR_HANDLE); \
    name = (type *)session; \
    if (sizeof(#type) != sizeof("vkinfer_session")) STATUS(call, VKINFER_ERROR_HANDLE); \
    name = (type *)closed; \
    STATUS(call, VKINFER_ERROR_HANDLE); \
  } while (0)

static vkinfer_status reentered;

static int32_t reenter(void *user, const vkinfer_token *token) {
  (void)user;
  reentered = vkinfer_session_run(token->session, NULL, NULL, NULL);
  return 1;
}

static int32_t close_session(void *user, const vkinfer_token *token) {
  (void)user;
  OK(vkinfer_session_close(token->session));
  return 0;
}

static int32_t close_engine(void *user, const vkinfer_token *token) {
  (void)token;
  OK(vkinfer_engine_close(user));
  return 0;
}

int main(int count, char **arguments) {
  int local = 0;
  size_t size = 0;
  int32_t flag, ids[600];
  char text[4096];
  float values[600];
  EXPECT(count == 2);
  EXPECT(strcmp(vkinfer_last_error(), "") == 0);
  EXPECT(strncmp(vkinfer_version(), "0.", 2) == 0 && strstr(vkinfer_build_info(), vkinfer_version()) != NULL);
  EXPECT(strcmp(vkinfer_status_name(VKINFER_ERROR_FILE), "VKINFER_ERROR_FILE") == 0);
  EXPECT(strcmp(vkinfer_status_name(INT32_MIN), "unknown") == 0);

  vkinfer_model *model = NULL;
  STATUS(vkinfer_model_open(NULL, &model), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_model_open(arguments[1], NULL), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_model_open("/nowhere.gguf", &model), VKINFER_ERROR_FILE);
  STATUS(vkinfer_model_open("/dev/null", &model), VKINFER_ERROR_FILE);
  STATUS(vkinfer_model_open("\xff\xfe", &model), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_model_open("", &model), VKINFER_ERROR_FILE);
  EXPECT(model == NULL);
  vkinfer_model *closed;
  OK(vkinfer_model_open(arguments[1], &closed));
  OK(vkinfer_model_close(closed));
  STATUS(vkinfer_model_close(closed), VKINFER_ERROR_HANDLE);
  OK(vkinfer_model_open(arguments[1], &model));
  EXPECT(model != closed);

  vkinfer_model_info info = {0};
  STATUS(vkinfer_model_inspect(model, NULL), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_model_inspect(model, &info), VKINFER_ERROR_ARGUMENT);
  info.size = UINT32_MAX;
  STATUS(vkinfer_model_inspect(model, &info), VKINFER_ERROR_ARGUMENT);
  info.size = 8; /* an older program: nothing behind is touched */
  info.layers = 77;
  OK(vkinfer_model_inspect(model, &info));
  EXPECT(info.context_length == 512 && info.layers == 77);
  info.size = sizeof info;
  OK(vkinfer_model_inspect(model, &info));
  EXPECT(info.layers == 2 && info.vocabulary_size == 259 && strcmp(info.architecture, "llama") == 0);
  struct {
    vkinfer_model_info info;
    uint64_t later[8];
  } newer = {{0}, {0}};
  memset(&newer, 0xff, sizeof newer);
  newer.info.size = sizeof newer; /* a newer program: zeros behind what is known */
  OK(vkinfer_model_inspect(model, &newer.info));
  EXPECT(newer.later[0] == 0 && newer.later[7] == 0 && newer.info.layers == 2);

  OK(vkinfer_model_metadata(model, "general.name", text, sizeof text, &size));
  EXPECT(strcmp(text, "Tiny") == 0 && size == 4);
  STATUS(vkinfer_model_metadata(model, "general.name", text, 4, &size), VKINFER_ERROR_BUFFER);
  STATUS(vkinfer_model_metadata(model, "general.nothing", text, 4, &size), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_model_metadata(model, "\xc3\xa9", text, 4, &size), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_model_metadata(model, NULL, text, 4, &size), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_model_metadata(model, "tokenizer.ggml.tokens", text, 4, &size), VKINFER_ERROR_ARGUMENT);

  OK(vkinfer_tokenize(model, "abc", 3, 0, NULL, 0, &size));
  EXPECT(size == 3);
  STATUS(vkinfer_tokenize(model, "abc", 3, 0, ids, 2, &size), VKINFER_ERROR_BUFFER);
  STATUS(vkinfer_tokenize(model, "abc", 3, 0, NULL, 2, &size), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_tokenize(model, "abc", 3, 0, ids, 3, NULL), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_tokenize(model, NULL, 3, 0, ids, 3, &size), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_tokenize(model, "abc", SIZE_MAX, 0, ids, 3, &size), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_tokenize(model, "abc", 3, 0xff00, ids, 3, &size), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_tokenize(model, "\xff", 1, 0, ids, 3, &size), VKINFER_ERROR_ARGUMENT);
  OK(vkinfer_tokenize(model, NULL, 0, 0, ids, 3, &size));
  EXPECT(size == 0);
  OK(vkinfer_tokenize(model, "a\0b", 3, 0, ids, SIZE_MAX, &size));
  EXPECT(size == 3);
  OK(vkinfer_detokenize(model, ids, 3, 0, text, sizeof text, &size));
  EXPECT(size == 3 && memcmp(text, "a\0b", 4) == 0);
  ids[1] = -1;
  STATUS(vkinfer_detokenize(model, ids, 3, 0, text, sizeof text, &size), VKINFER_ERROR_PROMPT);
  ids[1] = INT32_MAX;
  STATUS(vkinfer_detokenize(model, ids, 3, 0, text, sizeof text, &size), VKINFER_ERROR_PROMPT);
  STATUS(vkinfer_detokenize(model, ids, SIZE_MAX / 2, 0, text, 1, &size), VKINFER_ERROR_ARGUMENT);
  OK(vkinfer_token_ends(model, 257, &flag));
  EXPECT(flag == 1);
  OK(vkinfer_token_ends(model, INT32_MIN, &flag));
  EXPECT(flag == 0);
  STATUS(vkinfer_token_ends(model, 1, NULL), VKINFER_ERROR_ARGUMENT);

  vkinfer_device_info devices[64];
  OK(vkinfer_devices(NULL, 0, &size));
  EXPECT(size >= 1 && size < 64);
  devices[0].size = 0;
  STATUS(vkinfer_devices(devices, 64, &size), VKINFER_ERROR_ARGUMENT);
  devices[0].size = sizeof devices[0];
  OK(vkinfer_devices(devices, 64, &size));
  EXPECT(devices[0].is_default == 1 && devices[0].name[0] != 0);
  STATUS(vkinfer_devices(devices, 64, NULL), VKINFER_ERROR_ARGUMENT);

  /* Options of engines. */
  vkinfer_engine *engine = NULL;
  vkinfer_engine_options options;
  STATUS(vkinfer_engine_options_default(NULL, sizeof options), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_engine_options_default(&options, 0), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_engine_options_default(&options, SIZE_MAX), VKINFER_ERROR_ARGUMENT);
#define ENGINE(change, status) \
  do { \
    OK(vkinfer_engine_options_default(&options, sizeof options)); \
    change; \
    STATUS(vkinfer_engine_open(model, &options, &engine), status); \
  } while (0)
  ENGINE(options.size = 0, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.parallel = 0, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.parallel = UINT32_MAX, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.context_length = UINT32_MAX, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.prompt_chunk = UINT32_MAX, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.cache_tokens = UINT64_MAX, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.device = "no such device", VKINFER_ERROR_DEVICE);
  ENGINE(options.device = "\xff", VKINFER_ERROR_ARGUMENT);
  ENGINE(options.kv_type = "f77", VKINFER_ERROR_UNSUPPORTED);
  /* Its heads are no whole blocks of 32. */
  ENGINE(options.kv_type = "q8_0", VKINFER_ERROR_ARGUMENT);
  ENGINE(options.weights_from = 3, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.weights_from = UINT32_MAX, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.prefetch = -2, VKINFER_ERROR_ARGUMENT);
  ENGINE(options.pooling = 3, VKINFER_ERROR_ARGUMENT);
  /* What no device has room for, wherever weights are. */
  ENGINE(options.gpu_memory = 1, VKINFER_ERROR_MEMORY);
  OK(vkinfer_engine_options_default(&options, sizeof options));
  STATUS(vkinfer_engine_open(model, &options, NULL), VKINFER_ERROR_ARGUMENT);
  struct {
    vkinfer_engine_options options;
    uint64_t later;
  } newer_options = {options, 1};
  newer_options.options.size = sizeof newer_options;
  STATUS(vkinfer_engine_open(model, &newer_options.options, &engine), VKINFER_ERROR_UNSUPPORTED);
  EXPECT(engine == NULL);
  engine = open_engine(model, 2);

  /* Sessions. */
  vkinfer_session *session = NULL;
  vkinfer_token token = {0};
  vkinfer_result result = {0};
  STATUS(vkinfer_session_open(engine, NULL), VKINFER_ERROR_ARGUMENT);
  OK(vkinfer_session_open(engine, &session));
  token.size = sizeof token;
  STATUS(vkinfer_session_next(session, 0, &token), VKINFER_ERROR_STATE);
  STATUS(vkinfer_session_start(session, NULL), VKINFER_ERROR_PROMPT);
  STATUS(vkinfer_session_logits(session, values, 600, &size), VKINFER_ERROR_PROMPT);
  STATUS(vkinfer_session_embedding(session, values, 600, &size), VKINFER_ERROR_PROMPT);
  ids[0] = 259;
  STATUS(vkinfer_session_feed(session, ids, 1), VKINFER_ERROR_PROMPT);
  ids[0] = -1;
  STATUS(vkinfer_session_feed(session, ids, 1), VKINFER_ERROR_PROMPT);
  STATUS(vkinfer_session_feed(session, NULL, 1), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_session_feed(session, ids, SIZE_MAX), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_session_feed_text(session, "a", SIZE_MAX, 0), VKINFER_ERROR_ARGUMENT);
  OK(vkinfer_session_feed_text(session, "hello", 5, 0));
  STATUS(vkinfer_session_truncate(session, 6), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_session_truncate(session, SIZE_MAX), VKINFER_ERROR_ARGUMENT);
  OK(vkinfer_session_truncate(session, 4));
  OK(vkinfer_session_tokens(session, ids, 600, &size));
  EXPECT(size == 4);
  vkinfer_generation_options generation;
#define START(change) \
  do { \
    OK(vkinfer_generation_options_default(&generation, sizeof generation)); \
    change; \
    STATUS(vkinfer_session_start(session, &generation), VKINFER_ERROR_ARGUMENT); \
  } while (0)
  const char *stops[65] = {NULL};
  START(generation.size = 3);
  START(generation.max_tokens = INT32_MIN);
  START(generation.logprobs = 101);
  START(generation.logprobs = -2);
  START(generation.temperature = NAN);
  START(generation.temperature = -1);
  START(generation.top_p = INFINITY);
  START(generation.min_p = NAN);
  START(generation.repeat_penalty = 0);
  START(generation.presence_penalty = -INFINITY);
  START(generation.frequency_penalty = NAN);
  START(generation.stop_count = UINT32_MAX);
  START(generation.stop_count = 1);
  START(generation.stop_count = 1; generation.stop = stops);
  START(generation.stop_count = 65; generation.stop = stops);
  generation = tokens_wanted(4);
  generation.logprobs = 3;
  generation.top_k = UINT32_MAX;
  generation.temperature = 1;
  OK(vkinfer_session_start(session, &generation));
  token.size = 0;
  STATUS(vkinfer_session_next(session, -1, &token), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_session_next(session, -1, NULL), VKINFER_ERROR_ARGUMENT);
  token.size = sizeof token;
  for (int index = 0; index < 4; index++) {
    OK(vkinfer_session_next(session, -1, &token));
    EXPECT(token.session == session && token.top_count == 3 && token.logprob <= 0);
    EXPECT(token.top[0].logprob >= token.top[1].logprob && token.text[token.text_length] == 0);
  }
  for (;;) {
    vkinfer_status status = vkinfer_session_next(session, -1, &token);
    if (status == VKINFER_DONE) {
      break;
    }
    EXPECT(status == VKINFER_OK && token.id == -1); /* the end of a character that never came whole */
  }
  STATUS(vkinfer_session_next(session, INT32_MAX, &token), VKINFER_DONE);
  STATUS(vkinfer_session_result(session, &result), VKINFER_ERROR_ARGUMENT);
  result.size = sizeof result;
  OK(vkinfer_session_result(session, &result));
  EXPECT(result.finish == VKINFER_FINISH_LENGTH && result.generated_tokens == 4 && result.prompt_tokens == 4);
  OK(vkinfer_session_cancel(session));
  OK(vkinfer_session_embedding(session, NULL, 0, &size));
  EXPECT(size == 64);
  STATUS(vkinfer_session_embedding(session, values, 63, &size), VKINFER_ERROR_BUFFER);
  STATUS(vkinfer_session_embedding(session, values, 600, NULL), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_session_embedding(session, NULL, 600, &size), VKINFER_ERROR_ARGUMENT);
  OK(vkinfer_session_embedding(session, values, 600, &size));
  OK(vkinfer_session_logits(session, NULL, 0, &size));
  EXPECT(size == 259);
  STATUS(vkinfer_session_logits(session, values, 258, &size), VKINFER_ERROR_BUFFER);
  STATUS(vkinfer_session_logits(session, values, 600, NULL), VKINFER_ERROR_ARGUMENT);
  OK(vkinfer_session_logits(session, values, 600, &size));
  STATUS(vkinfer_session_save(session, NULL), VKINFER_ERROR_ARGUMENT);
  STATUS(vkinfer_session_save(session, "/nowhere/state"), VKINFER_ERROR_FILE);
  STATUS(vkinfer_session_restore(session, "/nowhere/state"), VKINFER_ERROR_FILE);
  STATUS(vkinfer_session_restore(session, arguments[1]), VKINFER_ERROR_FILE);

  /* Callbacks that start what runs already, and close what they are called for. */
  generation = tokens_wanted(20);
  reentered = VKINFER_OK;
  OK(vkinfer_session_run(session, &generation, reenter, NULL));
  EXPECT(reentered == VKINFER_ERROR_STATE);
  vkinfer_session *closing = open_session(engine, "closed by its callback");
  STATUS(vkinfer_session_run(closing, &generation, close_session, NULL), VKINFER_ERROR_HANDLE);
  vkinfer_engine *closing_engine = open_engine(model, 1);
  closing = open_session(closing_engine, "closed by its callback");
  STATUS(vkinfer_session_run(closing, &generation, close_engine, closing_engine), VKINFER_ERROR_HANDLE);
  STATUS(vkinfer_engine_close(closing_engine), VKINFER_ERROR_HANDLE);
  OK(vkinfer_session_truncate(session, 8));

  /* A context that is full. */
  memset(text, 'x', sizeof text);
  OK(vkinfer_session_feed_text(session, text, 256 - 8, 0));
  STATUS(vkinfer_session_logits(session, values, 600, &size), VKINFER_ERROR_PROMPT);
  STATUS(vkinfer_session_embedding(session, values, 600, &size), VKINFER_ERROR_PROMPT);
  OK(vkinfer_session_feed_text(session, text, 1, 0));
  STATUS(vkinfer_session_start(session, NULL), VKINFER_ERROR_PROMPT);

  /* Handles that are none. */
  vkinfer_engine_info engine_info = {0};
  engine_info.size = sizeof engine_info;
  vkinfer_session *other = NULL;
  WRONG_HANDLES(vkinfer_model, handle, vkinfer_model_inspect(handle, &info));
  WRONG_HANDLES(vkinfer_model, handle, vkinfer_model_close(handle));
  WRONG_HANDLES(vkinfer_model, handle, vkinfer_tokenize(handle, "a", 1, 0, NULL, 0, &size));
  WRONG_HANDLES(vkinfer_model, handle, vkinfer_detokenize(handle, ids, 0, 0, text, sizeof text, &size));
  WRONG_HANDLES(vkinfer_model, handle, vkinfer_token_ends(handle, 1, &flag));
  WRONG_HANDLES(vkinfer_model, handle, vkinfer_model_metadata(handle, "general.name", text, 9, &size));
  WRONG_HANDLES(vkinfer_model, handle, vkinfer_engine_open(handle, NULL, &engine));
  WRONG_HANDLES(vkinfer_engine, handle, vkinfer_engine_inspect(handle, &engine_info));
  WRONG_HANDLES(vkinfer_engine, handle, vkinfer_engine_close(handle));
  WRONG_HANDLES(vkinfer_engine, handle, vkinfer_engine_wait(handle, 0, &other));
  WRONG_HANDLES(vkinfer_engine, handle, vkinfer_session_open(handle, &other));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_close(handle));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_feed(handle, ids, 1));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_start(handle, NULL));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_next(handle, 0, &token));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_run(handle, NULL, NULL, NULL));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_cancel(handle));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_result(handle, &result));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_logits(handle, values, 600, &size));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_embedding(handle, values, 600, &size));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_tokens(handle, ids, 600, &size));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_truncate(handle, 0));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_feed_text(handle, "x", 1, 0));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_save(handle, "x"));
  WRONG_HANDLES(vkinfer_session, handle, vkinfer_session_restore(handle, "x"));

  STATUS(vkinfer_engine_wait(engine, -1, &other), VKINFER_DONE);
  OK(vkinfer_model_close(model)); /* the engine goes on */
  OK(vkinfer_engine_inspect(engine, &engine_info));
  OK(vkinfer_engine_close(engine));
  STATUS(vkinfer_engine_close(engine), VKINFER_ERROR_HANDLE);
  STATUS(vkinfer_session_close(session), VKINFER_ERROR_HANDLE);
  return 0;
}
