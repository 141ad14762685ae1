/* Embeddings: embedding MODEL. No token sees those behind it, so the mean over a text's tokens is that of the last tokens
 * of all its beginnings. */
#include <math.h>
#include "check.h"

#define WIDTH 64

static const char text[] = "A text of more than two pages of the cache, which has 32 tokens each, to be embedded.";

static vkinfer_engine *open_pooling(vkinfer_model *model, uint32_t pooling, const char *mesh) {
  vkinfer_engine *engine = NULL;
  vkinfer_engine_options options;
  OK(vkinfer_engine_options_default(&options, sizeof options));
  options.context_length = 128;
  options.parallel = 4;
  options.prompt_chunk = 16;
  options.pooling = pooling;
  options.mesh = mesh;
  OK(vkinfer_engine_open(model, &options, &engine));
  return engine;
}

static void embed(vkinfer_engine *engine, size_t length, float *values) {
  vkinfer_session *session = NULL;
  size_t count;
  OK(vkinfer_session_open(engine, &session));
  OK(vkinfer_session_feed_text(session, text, length, 0));
  OK(vkinfer_session_embedding(session, NULL, 0, &count));
  EXPECT(count == WIDTH);
  OK(vkinfer_session_embedding(session, values, WIDTH, &count));
  OK(vkinfer_session_close(session));
}

static double distance(const float *values, const double *wanted) {
  double difference = 0, norm = 0;
  for (int index = 0; index < WIDTH; index++) {
    difference += pow(values[index] - wanted[index], 2);
    norm += pow(wanted[index], 2);
  }
  EXPECT(norm > 0);
  return sqrt(difference / norm);
}

int main(int count, char **arguments) {
  float values[WIDTH];
  double last[WIDTH] = {0}, mean[WIDTH] = {0};
  size_t length = sizeof text - 1, size;
  EXPECT(count == 2);
  vkinfer_model *model;
  OK(vkinfer_model_open(arguments[1], &model));
  vkinfer_engine *engine = open_pooling(model, VKINFER_POOLING_MODEL, NULL);
  /* Others generate meanwhile. */
  vkinfer_generation_options options = tokens_wanted(100);
  vkinfer_session *busy = open_session(engine, "busy");
  OK(vkinfer_session_start(busy, &options));
  STATUS(vkinfer_session_embedding(busy, values, WIDTH, &size), VKINFER_ERROR_STATE);
  for (size_t end = 1; end <= length; end++) {
    embed(engine, end, values);
    for (int index = 0; index < WIDTH; index++) {
      last[index] = values[index];
      mean[index] += values[index] / (double)length;
    }
  }
  OK(vkinfer_engine_close(engine));

  static const char *const meshes[] = {NULL, "0,0"};
  for (int index = 0; index < 2; index++) {
    engine = open_pooling(model, VKINFER_POOLING_MEAN, meshes[index]);
    embed(engine, length, values);
    EXPECT(distance(values, mean) < 1e-3 && distance(values, last) > 0.01);
    embed(engine, length, values); /* what is known of the text does not matter */
    EXPECT(distance(values, mean) < 1e-3);
    OK(vkinfer_engine_close(engine));
    engine = open_pooling(model, VKINFER_POOLING_LAST, meshes[index]);
    embed(engine, length, values);
    EXPECT(distance(values, last) < 1e-3);
    OK(vkinfer_engine_close(engine));
  }
  OK(vkinfer_model_close(model));
  return 0;
}
