/* One model on several devices, the same one named several times: mesh MODEL FOLDER. Texts and logits are those of one
 * device, states go from any to any; what cannot be is an error. */
#include <math.h>
#include "check.h"

static const char prompt[] = "A text of more than two pages of the cache, which has 32 tokens each, for many devices.";

static vkinfer_engine *open_mesh(vkinfer_model *model, const char *mesh, uint32_t tensor, uint32_t pipeline) {
  vkinfer_engine *engine = NULL;
  vkinfer_engine_options options;
  OK(vkinfer_engine_options_default(&options, sizeof options));
  options.context_length = 256;
  options.parallel = 4;
  options.mesh = mesh;
  options.tensor_parallel = tensor;
  options.pipeline_parallel = pipeline;
  OK(vkinfer_engine_open(model, &options, &engine));
  return engine;
}

static double distance(const float *one, const float *other, size_t count) {
  double difference = 0, norm = 0;
  for (size_t index = 0; index < count; index++) {
    difference += pow(one[index] - other[index], 2);
    norm += pow(other[index], 2);
  }
  EXPECT(norm > 0);
  return sqrt(difference / norm);
}

/* Two texts at a time, and the logits after the prompt. */
static void generate(vkinfer_engine *engine, int32_t tokens[2][512], float *logits) {
  vkinfer_session *sessions[2];
  vkinfer_generation_options options = tokens_wanted(12);
  size_t count;
  for (int index = 0; index < 2; index++) {
    sessions[index] = open_session(engine, prompt + 5 * index);
    OK(vkinfer_session_start(sessions[index], &options));
  }
  vkinfer_session *session;
  vkinfer_token token = {sizeof token, 0, NULL, NULL, 0, 0, 0, NULL};
  vkinfer_status status;
  while ((status = vkinfer_engine_wait(engine, -1, &session)) == VKINFER_OK) {
    EXPECT(vkinfer_session_next(session, -1, &token) >= 0);
  }
  EXPECT(status == VKINFER_DONE);
  for (int index = 0; index < 2; index++) {
    OK(vkinfer_session_tokens(sessions[index], tokens[index], 512, &count));
    EXPECT(count == sizeof prompt - 1 - 5 * (size_t)index + 12);
  }
  OK(vkinfer_session_truncate(sessions[0], sizeof prompt - 1));
  OK(vkinfer_session_logits(sessions[0], logits, 259, &count));
  OK(vkinfer_session_close(sessions[0]));
}

/* Saves the beginning of a text. */
static void save(vkinfer_engine *engine, const char *path, int32_t tokens[512], size_t length) {
  vkinfer_session *session;
  OK(vkinfer_session_open(engine, &session));
  OK(vkinfer_session_feed(session, tokens, length));
  OK(vkinfer_session_save(session, path));
  OK(vkinfer_session_close(session));
}

/* A fresh engine goes on with a state, with all of its full pages, as the one that saved it would have. */
static void go_on(
    vkinfer_model *model, const char *path, const char *mesh, uint32_t tensor, uint32_t pipeline,
    const int32_t tokens[512], size_t length, size_t more) {
  static int32_t found[512];
  vkinfer_engine *engine = open_mesh(model, mesh, tensor, pipeline);
  vkinfer_session *session;
  vkinfer_generation_options options = tokens_wanted((int32_t)more);
  vkinfer_result result = {sizeof result, 0, 0, 0, 0, 0, 0};
  size_t count;
  OK(vkinfer_session_open(engine, &session));
  OK(vkinfer_session_restore(session, path));
  OK(vkinfer_session_run(session, &options, NULL, NULL));
  OK(vkinfer_session_tokens(session, found, 512, &count));
  EXPECT(count == length + more && memcmp(found, tokens, count * sizeof found[0]) == 0);
  OK(vkinfer_session_result(session, &result));
  EXPECT(result.shared_tokens == length / 32 * 32);
  STATUS(vkinfer_session_restore(session, "/dev/null"), VKINFER_ERROR_FILE);
  OK(vkinfer_engine_close(engine));
}

int main(int count, char **arguments) {
  static const struct {
    const char *mesh;
    uint32_t tensor, pipeline, devices;
  } shapes[] = {{"0,0", 0, 0, 2}, {"0,0", 1, 2, 2}, {NULL, 2, 2, 4}};
  static int32_t wanted[2][512], tokens[2][512];
  static float wanted_logits[259], logits[259];
  EXPECT(count == 3);
  char path[512], mesh_path[512];
  snprintf(path, sizeof path, "%s/state-of-one", arguments[2]);
  snprintf(mesh_path, sizeof mesh_path, "%s/state-of-a-mesh", arguments[2]);
  const size_t length = sizeof prompt - 1 + 4, more = 8; /* the prompt, and some of what came after it */
  vkinfer_model *model;
  OK(vkinfer_model_open(arguments[1], &model));
  vkinfer_engine *engine = open_mesh(model, NULL, 0, 0);
  generate(engine, wanted, wanted_logits);
  save(engine, path, wanted[0], length);
  OK(vkinfer_engine_close(engine));
  for (size_t index = 0; index < sizeof shapes / sizeof shapes[0]; index++) {
    engine = open_mesh(model, shapes[index].mesh, shapes[index].tensor, shapes[index].pipeline);
    vkinfer_engine_info info = {0};
    info.size = sizeof info;
    OK(vkinfer_engine_inspect(engine, &info));
    EXPECT(info.device_count == shapes[index].devices && info.streamed_bytes == 0);
    generate(engine, tokens, logits);
    EXPECT(distance(logits, wanted_logits, 259) < 1e-4);
    EXPECT(memcmp(tokens, wanted, sizeof tokens) == 0);
    vkinfer_session *last = open_session(engine, prompt);
    save(engine, mesh_path, tokens[0], length);
    go_on(model, mesh_path, NULL, 0, 0, wanted[0], length, more);
    go_on(model, path, shapes[index].mesh, shapes[index].tensor, shapes[index].pipeline, wanted[0], length, more);
    /* Closed at work. */
    vkinfer_generation_options options = tokens_wanted(100);
    OK(vkinfer_session_start(last, &options));
    OK(vkinfer_engine_close(engine));
    STATUS(vkinfer_session_cancel(last), VKINFER_ERROR_HANDLE);
  }

  vkinfer_engine_options options;
#define WRONG(change, status) \
  do { \
    OK(vkinfer_engine_options_default(&options, sizeof options)); \
    change; \
    STATUS(vkinfer_engine_open(model, &options, &engine), status); \
  } while (0)
  WRONG(options.mesh = "0,0"; options.device = "0", VKINFER_ERROR_ARGUMENT);
  WRONG(options.mesh = "0,0,0"; options.tensor_parallel = 2, VKINFER_ERROR_ARGUMENT);
  WRONG(options.mesh = "0,no such device", VKINFER_ERROR_DEVICE);
  WRONG(options.mesh = "0,\xff", VKINFER_ERROR_ARGUMENT);
  WRONG(options.tensor_parallel = UINT32_MAX, VKINFER_ERROR_ARGUMENT);
  WRONG(options.pipeline_parallel = 65, VKINFER_ERROR_ARGUMENT);
  WRONG(options.pipeline_parallel = 3, VKINFER_ERROR_ARGUMENT); /* of two layers */
  WRONG(options.mesh = "0,0"; options.gpu_memory = 1, VKINFER_ERROR_MEMORY);
  OK(vkinfer_model_close(model));
  return 0;
}
