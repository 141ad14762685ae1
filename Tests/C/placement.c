/* Where an engine keeps things and on how many devices, as its options say: placement MODEL FOLDER. Texts and logits are
 * the same wherever keys and values are; copies of a model share out sessions, each of which stays with its own. */
#include <pthread.h>
#include "check.h"

static const char prompt[] = "A text of more than two pages of the cache, which has 32 tokens each, for each session.";
static vkinfer_model *model;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_text[1 << 16];

static void keep_line(void *user, uint32_t level, const char *text) {
  (void)user;
  (void)level;
  pthread_mutex_lock(&log_lock);
  EXPECT(strchr(text, '\n') == NULL && strlen(log_text) + strlen(text) + 2 < sizeof log_text);
  strcat(strcat(log_text, text), "\n");
  pthread_mutex_unlock(&log_lock);
}

static vkinfer_engine_options usual(void) {
  vkinfer_engine_options options;
  OK(vkinfer_engine_options_default(&options, sizeof options));
  options.context_length = 256;
  options.parallel = 4;
  options.log = keep_line;
  log_text[0] = 0;
  return options;
}

static vkinfer_engine *open_with(const vkinfer_engine_options *options) {
  vkinfer_engine *engine = NULL;
  OK(vkinfer_engine_open(model, options, &engine));
  return engine;
}

static size_t tokens_of(vkinfer_session *session, int32_t tokens[512]) {
  size_t count;
  OK(vkinfer_session_tokens(session, tokens, 512, &count));
  return count;
}

static void read_to_end(vkinfer_session *session) {
  vkinfer_token token = {sizeof token, 0, NULL, NULL, 0, 0, 0, NULL};
  vkinfer_status status;
  while ((status = vkinfer_session_next(session, -1, &token)) == VKINFER_OK) {
  }
  EXPECT(status == VKINFER_DONE);
}

/* Texts of `count` sessions at the same time, and the logits after the first. */
static void generate(vkinfer_engine *engine, int count, int32_t tokens[][512], float *logits) {
  vkinfer_session *sessions[16];
  vkinfer_generation_options options = tokens_wanted(12);
  size_t size;
  EXPECT(count <= 16);
  memset(tokens, 0, (size_t)count * sizeof tokens[0]);
  for (int index = 0; index < count; index++) {
    sessions[index] = open_session(engine, prompt + index);
    OK(vkinfer_session_start(sessions[index], &options));
  }
  for (int index = 0; index < count; index++) {
    read_to_end(sessions[index]);
    EXPECT(tokens_of(sessions[index], tokens[index]) == sizeof prompt - 1 - (size_t)index + 12);
  }
  OK(vkinfer_session_logits(sessions[0], logits, 259, &size));
  for (int index = 0; index < count; index++) {
    OK(vkinfer_session_close(sessions[index]));
  }
}

/* Sessions that go on find what their own copy knows; what one saves, another restores. */
static void go_on(vkinfer_engine *engine, const char *path) {
  static int32_t wanted[512], tokens[512];
  vkinfer_session *sessions[4], *restored;
  vkinfer_generation_options options = tokens_wanted(8);
  vkinfer_result result = {sizeof result, 0, 0, 0, 0, 0, 0};
  for (int index = 0; index < 4; index++) {
    /* Beginnings that have no page in common. */
    sessions[index] = open_session(engine, prompt + 3 * index);
  }
  for (int round = 0; round < 3; round++) {
    for (int index = 0; index < 4; index++) {
      OK(vkinfer_session_start(sessions[index], &options));
    }
    for (int index = 0; index < 4; index++) {
      read_to_end(sessions[index]);
      OK(vkinfer_session_result(sessions[index], &result));
      EXPECT(result.finish == VKINFER_FINISH_LENGTH && result.generated_tokens == 8);
      /* Its last token was drawn, but not yet computed with. */
      EXPECT(round == 0 || result.shared_tokens >= (result.prompt_tokens - 1) / 32 * 32);
    }
  }
  OK(vkinfer_session_save(sessions[1], path));
  OK(vkinfer_session_open(engine, &restored));
  OK(vkinfer_session_restore(restored, path));
  OK(vkinfer_session_run(sessions[1], &options, NULL, NULL));
  OK(vkinfer_session_run(restored, &options, NULL, NULL));
  size_t count = tokens_of(sessions[1], wanted);
  EXPECT(tokens_of(restored, tokens) == count && memcmp(tokens, wanted, count * sizeof tokens[0]) == 0);
  OK(vkinfer_session_result(restored, &result));
  EXPECT(result.shared_tokens >= (result.prompt_tokens - 1) / 32 * 32);
}

static void copies(int32_t wanted[][512], const char *path) {
  static int32_t tokens[8][512];
  float logits[259];
  vkinfer_engine_options options = usual();
  options.data_parallel = 2;
  vkinfer_engine *engine = open_with(&options);
  vkinfer_engine_info info = {0};
  info.size = sizeof info;
  OK(vkinfer_engine_inspect(engine, &info));
  EXPECT(info.engine_count == 2 && info.device_count == 2 && info.parallel == 4 && info.context_length == 256);
  EXPECT(strstr(log_text, "engine 0: loaded onto ") != NULL && strstr(log_text, "engine 1: loaded onto ") != NULL);
  generate(engine, 8, tokens, logits);
  EXPECT(memcmp(tokens, wanted, sizeof tokens) == 0);
  go_on(engine, path);
  OK(vkinfer_engine_close(engine));

  /* One at a time for each copy: those that wait can be cancelled and closed, and the engine closed at work. */
  options.parallel = 1;
  engine = open_with(&options);
  OK(vkinfer_engine_inspect(engine, &info));
  EXPECT(info.parallel == 2);
  vkinfer_generation_options generation = tokens_wanted(150);
  vkinfer_result result = {sizeof result, 0, 0, 0, 0, 0, 0};
  vkinfer_session *sessions[5];
  for (int index = 0; index < 5; index++) {
    sessions[index] = open_session(engine, prompt);
    OK(vkinfer_session_start(sessions[index], &generation));
  }
  OK(vkinfer_session_cancel(sessions[4]));
  read_to_end(sessions[4]);
  OK(vkinfer_session_result(sessions[4], &result));
  EXPECT(result.finish == VKINFER_FINISH_CANCELLED && result.generated_tokens == 0);
  EXPECT(tokens_of(sessions[4], tokens[0]) == sizeof prompt - 1);
  OK(vkinfer_session_close(sessions[3]));
  OK(vkinfer_session_cancel(sessions[0]));
  read_to_end(sessions[0]);
  OK(vkinfer_engine_close(engine));
  STATUS(vkinfer_session_cancel(sessions[1]), VKINFER_ERROR_HANDLE);
}

int main(int count, char **arguments) {
  static int32_t wanted[8][512], tokens[8][512];
  static float wanted_logits[259], logits[259];
  static const uint32_t layers[] = {1, 1}, wrong_layers[] = {2, 1};
  char path[512];
  EXPECT(count == 3);
  snprintf(path, sizeof path, "%s/state-of-a-copy", arguments[2]);
  OK(vkinfer_model_open(arguments[1], &model));
  vkinfer_engine_options options = usual();
  vkinfer_engine *engine = open_with(&options);
  EXPECT(strstr(log_text, "loaded onto ") != NULL && strstr(log_text, "loaded in ") != NULL);
  generate(engine, 8, wanted, wanted_logits);
  OK(vkinfer_engine_close(engine));

  static const uint32_t offloads[] = {VKINFER_KV_OFFLOAD_ON, VKINFER_KV_OFFLOAD_OFF};
  for (int index = 0; index < 2; index++) {
    options = usual();
    options.kv_offload = offloads[index];
    engine = open_with(&options);
    EXPECT((strstr(log_text, "keys and values of 2 of 2 layers in host memory") != NULL) == (index == 0));
    generate(engine, 8, tokens, logits);
    EXPECT(memcmp(tokens, wanted, sizeof tokens) == 0 && memcmp(logits, wanted_logits, sizeof logits) == 0);
    OK(vkinfer_engine_close(engine));
  }

  options = usual();
  options.pipeline_parallel = 2;
  options.mesh_path = VKINFER_MESH_PATH_THREADS;
  options.mesh_memory = VKINFER_MESH_MEMORY_HOST;
  options.stage_count = 2;
  options.stage_layers = layers;
  options.kv_offload = VKINFER_KV_OFFLOAD_ON;
  engine = open_with(&options);
  EXPECT(strstr(log_text, "layers 0 to 0") != NULL && strstr(log_text, "layers 1 to 1") != NULL);
  EXPECT(strstr(log_text, "device 1: keys and values of 1 of 1 layers in host memory") != NULL);
  EXPECT(strstr(log_text, "share host memory and wait for one another by threads") != NULL);
  generate(engine, 8, tokens, logits);
  EXPECT(memcmp(tokens, wanted, sizeof tokens) == 0);
  OK(vkinfer_engine_close(engine));

  copies(wanted, path);

#define WRONG(change) \
  do { \
    options = usual(); \
    change; \
    STATUS(vkinfer_engine_open(model, &options, &engine), VKINFER_ERROR_ARGUMENT); \
  } while (0)
  WRONG(options.kv_offload = 3);
  WRONG(options.mesh_path = 4);
  WRONG(options.mesh_memory = 3);
  WRONG(options.data_parallel = 65);
  WRONG(options.data_parallel = UINT32_MAX);
  WRONG(options.data_parallel = 2; options.mesh = "0,0,0");
  WRONG(options.pipeline_parallel = 2; options.stage_count = 2);
  WRONG(options.pipeline_parallel = 2; options.stage_count = 2; options.stage_layers = wrong_layers);
  WRONG(options.pipeline_parallel = 2; options.stage_count = 1; options.stage_layers = layers);
  WRONG(options.stage_count = UINT32_MAX; options.stage_layers = layers);
  OK(vkinfer_model_close(model));
  return 0;
}
