/* What a session keeps: text, tokens that end early, logits, saved states; damaged states of all kinds:
 * state MODEL FOLDER. */
#include <math.h>
#include <pthread.h>
#include <unistd.h>
#include "check.h"

static const char prompt[] = "A text of more than two pages of the cache, which has 32 tokens each, to be kept in a file.";

static size_t all_tokens(vkinfer_session *session, int32_t *tokens) {
  size_t count;
  OK(vkinfer_session_tokens(session, tokens, 512, &count));
  return count;
}

static int32_t stop_at_third(void *user, const vkinfer_token *token) {
  (void)token;
  return ++*(int *)user == 3;
}

static void *cancel_soon(void *session) {
  usleep(20000);
  OK(vkinfer_session_cancel(session));
  return NULL;
}

static void *close_soon(void *session) {
  usleep(20000);
  OK(vkinfer_session_close(session));
  return NULL;
}

static long read_file(const char *path, unsigned char *bytes, size_t capacity) {
  FILE *file = fopen(path, "rb");
  EXPECT(file != NULL);
  long size = (long)fread(bytes, 1, capacity, file);
  fclose(file);
  return size;
}

static void write_file(const char *path, const unsigned char *bytes, size_t size) {
  FILE *file = fopen(path, "wb");
  EXPECT(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

int main(int count, char **arguments) {
  EXPECT(count == 3);
  char path[512], other_path[512];
  snprintf(path, sizeof path, "%s/state", arguments[2]);
  snprintf(other_path, sizeof other_path, "%s/damaged", arguments[2]);
  vkinfer_model *model;
  OK(vkinfer_model_open(arguments[1], &model));
  vkinfer_engine *engine = open_engine(model, 4);
  vkinfer_generation_options options = tokens_wanted(8);
  vkinfer_result result = {sizeof result, 0, 0, 0, 0, 0, 0};
  static int32_t first[512], second[512], third[512];

  /* A saved text goes on in another engine as it does here, and nothing of its pages is computed again. */
  vkinfer_session *session = open_session(engine, prompt);
  OK(vkinfer_session_run(session, &options, NULL, NULL));
  OK(vkinfer_session_save(session, path));
  size_t saved = all_tokens(session, first);
  EXPECT(saved == sizeof prompt - 1 + 8);
  OK(vkinfer_session_run(session, &options, NULL, NULL));
  size_t length = all_tokens(session, first);
  EXPECT(length == saved + 8);
  vkinfer_engine *fresh = open_engine(model, 1);
  vkinfer_session *restored = NULL;
  OK(vkinfer_session_open(fresh, &restored));
  OK(vkinfer_session_restore(restored, path));
  EXPECT(all_tokens(restored, second) == saved && memcmp(first, second, saved * sizeof first[0]) == 0);
  OK(vkinfer_session_run(restored, &options, NULL, NULL));
  EXPECT(all_tokens(restored, second) == length && memcmp(first, second, length * sizeof first[0]) == 0);
  OK(vkinfer_session_result(restored, &result));
  EXPECT(result.shared_tokens == saved / 32 * 32 && result.prompt_tokens == saved);

  /* Logits after restored pages are those after computed ones; they choose the token that came. */
  static float here[259], there[259];
  size_t logits;
  OK(vkinfer_session_truncate(session, saved));
  OK(vkinfer_session_truncate(restored, saved));
  OK(vkinfer_session_logits(session, here, 259, &logits));
  OK(vkinfer_session_logits(restored, there, 259, &logits));
  double difference = 0, norm = 0;
  int best = 0;
  for (int index = 0; index < 259; index++) {
    difference += pow(here[index] - there[index], 2);
    norm += pow(here[index], 2);
    best = here[index] > here[best] ? index : best;
  }
  EXPECT(norm > 0 && sqrt(difference / norm) < 1e-4);
  EXPECT(best == first[saved]);

  /* A context too small for it. */
  vkinfer_engine_options small;
  vkinfer_engine *small_engine;
  vkinfer_session *small_session;
  OK(vkinfer_engine_options_default(&small, sizeof small));
  small.context_length = 64;
  OK(vkinfer_engine_open(model, &small, &small_engine));
  OK(vkinfer_session_open(small_engine, &small_session));
  STATUS(vkinfer_session_restore(small_session, path), VKINFER_ERROR_PROMPT);
  OK(vkinfer_engine_close(small_engine));

  /* Damaged files: every byte of the header and many others, and every kind of length. */
  static unsigned char bytes[1 << 20], changed[1 << 20];
  long size = read_file(path, bytes, sizeof bytes);
  EXPECT(size > 1000 && size < (long)sizeof bytes);
  for (long place = 0; place < size; place += place < 64 ? 1 : size / 40) {
    memcpy(changed, bytes, (size_t)size);
    changed[place] ^= (unsigned char)(place % 2 ? 0x80 : 0x01);
    write_file(other_path, changed, (size_t)size);
    vkinfer_status status = vkinfer_session_restore(restored, other_path);
    EXPECT(status == VKINFER_ERROR_FILE || status == VKINFER_ERROR_MODEL || status == VKINFER_ERROR_PROMPT);
  }
  for (long cut = 0; cut < size; cut += cut < 64 ? 7 : size / 10) {
    write_file(other_path, bytes, (size_t)cut);
    STATUS(vkinfer_session_restore(restored, other_path), VKINFER_ERROR_FILE);
  }
  memset(changed + size, 0, 16);
  write_file(other_path, bytes, (size_t)size + 16);
  STATUS(vkinfer_session_restore(restored, other_path), VKINFER_ERROR_FILE);
  memset(changed, 0xff, sizeof changed);
  write_file(other_path, changed, sizeof changed);
  STATUS(vkinfer_session_restore(restored, other_path), VKINFER_ERROR_FILE);
  STATUS(vkinfer_session_restore(restored, arguments[2]), VKINFER_ERROR_FILE);
  /* None of that changed the session, nor what the engine knows. */
  OK(vkinfer_session_run(restored, &options, NULL, NULL));
  EXPECT(all_tokens(restored, third) == length && memcmp(first, third, length * sizeof first[0]) == 0);

  /* Ended by the callback, by another thread, by a stop text. */
  int seen = 0;
  options.max_tokens = 100;
  OK(vkinfer_session_truncate(session, 40));
  OK(vkinfer_session_run(session, &options, stop_at_third, &seen));
  OK(vkinfer_session_result(session, &result));
  EXPECT(seen == 3 && result.finish == VKINFER_FINISH_CANCELLED && result.generated_tokens >= 3);
  EXPECT(all_tokens(session, second) == 40 + result.generated_tokens);
  pthread_t thread;
  OK(vkinfer_session_truncate(session, 10));
  options.max_tokens = -1;
  EXPECT(pthread_create(&thread, NULL, cancel_soon, session) == 0);
  OK(vkinfer_session_run(session, &options, NULL, NULL));
  EXPECT(pthread_join(thread, NULL) == 0);
  OK(vkinfer_session_result(session, &result));
  EXPECT(result.finish == VKINFER_FINISH_CANCELLED || result.finish == VKINFER_FINISH_LENGTH);
  OK(vkinfer_session_truncate(session, 10));
  OK(vkinfer_session_start(session, &options));
  STATUS(vkinfer_session_feed_text(session, "x", 1, 0), VKINFER_ERROR_STATE);
  STATUS(vkinfer_session_save(session, path), VKINFER_ERROR_STATE);
  vkinfer_token token = {sizeof token, 0, NULL, NULL, 0, 0, 0, NULL};
  EXPECT(pthread_create(&thread, NULL, close_soon, session) == 0);
  vkinfer_status status;
  while ((status = vkinfer_session_next(session, -1, &token)) == VKINFER_OK) {
  }
  EXPECT(status == VKINFER_ERROR_HANDLE || status == VKINFER_DONE);
  EXPECT(pthread_join(thread, NULL) == 0);
  STATUS(vkinfer_session_cancel(session), VKINFER_ERROR_HANDLE);

  OK(vkinfer_engine_close(engine));
  OK(vkinfer_engine_close(fresh));
  OK(vkinfer_model_close(model));
  return 0;
}
