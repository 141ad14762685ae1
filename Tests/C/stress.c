/* Many threads open, feed, generate, cancel, save and close at the same time, handles of others among them:
 * stress MODEL THREADS ROUNDS FOLDER [COPIES]. */
#include <pthread.h>
#include <stdatomic.h>
#include "check.h"

static vkinfer_model *model;
static vkinfer_engine *engine;
static const char *folder, *model_path;
static int rounds;
/* Sessions that any thread may cancel or close. */
static _Atomic(vkinfer_session *) shared[8];
static atomic_long tokens;

static int32_t count_token(void *user, const vkinfer_token *token) {
  int32_t *left = user;
  EXPECT(token->text[token->text_length] == 0);
  atomic_fetch_add(&tokens, 1);
  return --*left == 0;
}

/* A call on a session that others may close: it works, or says that it was closed. */
static int closed(vkinfer_status status) {
  EXPECT(status >= 0 || status == VKINFER_ERROR_HANDLE || status == VKINFER_ERROR_STATE);
  return status < 0;
}

static void *run(void *argument) {
  unsigned number = (unsigned)(uintptr_t)argument, random = number * 2654435761u + 1;
  for (int round = 0; round < rounds; round++) {
    random = random * 1664525u + 1013904223u;
    unsigned place = random >> 29;
    char text[64], path[512];
    snprintf(text, sizeof text, "thread %u, round %d: some text to start with", number % 4, round % 3);
    vkinfer_session *session = open_session(engine, text);
    vkinfer_generation_options options = tokens_wanted(6);
    int32_t left = 1 + (int32_t)(random >> 12) % 6;
    switch ((random >> 8) % 8) {
    case 0: /* to the end, or until the callback has enough */
      OK(vkinfer_session_run(session, &options, count_token, &left));
      OK(vkinfer_session_close(session));
      break;
    case 1: { /* given up at once */
      OK(vkinfer_session_start(session, &options));
      OK(vkinfer_session_close(session));
      break;
    }
    case 2: { /* handed to the others while it runs */
      options.max_tokens = 100;
      OK(vkinfer_session_start(session, &options));
      vkinfer_session *old = atomic_exchange(&shared[place], session);
      if (old != NULL) {
        closed(vkinfer_session_close(old));
      }
      vkinfer_token token = {sizeof token, 0, NULL, NULL, 0, 0, 0, NULL};
      vkinfer_status status;
      while ((status = vkinfer_session_next(session, -1, &token)) == VKINFER_OK) {
        atomic_fetch_add(&tokens, 1);
      }
      closed(status);
      break;
    }
    case 3: { /* what others have */
      vkinfer_session *other = atomic_load(&shared[place]);
      if (other != NULL) {
        closed(vkinfer_session_cancel(other));
        closed(vkinfer_session_feed_text(other, "x", 1, 0));
      }
      OK(vkinfer_session_close(session));
      break;
    }
    case 4: { /* logits, beside all that */
      float logits[259];
      size_t count;
      OK(vkinfer_session_logits(session, logits, 259, &count));
      OK(vkinfer_session_close(session));
      break;
    }
    case 5: { /* an embedding */
      float values[64];
      size_t count;
      OK(vkinfer_session_embedding(session, values, 64, &count));
      OK(vkinfer_session_close(session));
      break;
    }
    case 6: { /* a model and, now and then, an engine of its own, beside the others */
      vkinfer_model *other = NULL;
      size_t count;
      OK(vkinfer_model_open(model_path, &other));
      OK(vkinfer_tokenize(other, text, strlen(text), VKINFER_ADD_SPECIAL, NULL, 0, &count));
      if (round % 8 == 0) {
        vkinfer_engine *own = open_engine(other, 1);
        OK(vkinfer_model_close(other));
        OK(vkinfer_session_run(open_session(own, text), &options, count_token, &left));
        OK(vkinfer_engine_close(own));
      } else {
        OK(vkinfer_model_close(other));
      }
      OK(vkinfer_session_close(session));
      break;
    }
    default: /* saved and restored */
      snprintf(path, sizeof path, "%s/state.%u", folder, number);
      OK(vkinfer_session_run(session, &options, count_token, &left));
      OK(vkinfer_session_save(session, path));
      OK(vkinfer_session_restore(session, path));
      OK(vkinfer_session_close(session));
    }
  }
  return NULL;
}

int main(int count, char **arguments) {
  EXPECT(count == 5 || count == 6);
  int threads = atoi(arguments[2]);
  rounds = atoi(arguments[3]);
  folder = arguments[4];
  model_path = arguments[1];
  pthread_t thread[256];
  EXPECT(threads >= 1 && threads <= 256);
  OK(vkinfer_model_open(arguments[1], &model));
  vkinfer_engine_options engine_options;
  OK(vkinfer_engine_options_default(&engine_options, sizeof engine_options));
  engine_options.parallel = 8;
  engine_options.context_length = 256;
  engine_options.data_parallel = count == 6 ? (uint32_t)atoi(arguments[5]) : 1;
  OK(vkinfer_engine_open(model, &engine_options, &engine));
  for (int index = 0; index < threads; index++) {
    EXPECT(pthread_create(&thread[index], NULL, run, (void *)(uintptr_t)index) == 0);
  }
  for (int index = 0; index < threads; index++) {
    EXPECT(pthread_join(thread[index], NULL) == 0);
  }
  EXPECT(atomic_load(&tokens) > threads);
  /* Closed while sessions still run and a thread waits for one. */
  vkinfer_session *last = open_session(engine, "the last one");
  vkinfer_generation_options options = tokens_wanted(200);
  OK(vkinfer_session_start(last, &options));
  OK(vkinfer_engine_close(engine));
  STATUS(vkinfer_session_close(last), VKINFER_ERROR_HANDLE);
  OK(vkinfer_model_close(model));
  return 0;
}
