/* vkinfer.h: transformer language models (GGUF files) on Vulkan devices. This file is the reference.
 *
 * Objects. A model is an opened file; an engine is a model loaded onto a device; a session is one text on an engine.
 * Any number of sessions share an engine, which computes those that generate at the same time in one batch. A model can
 * be closed while engines made from it live. Closing an engine closes its sessions.
 *
 * Handles. Objects are known by handles, which are not addresses. A handle that is NULL, of another kind, closed or made
 * up is an error (VKINFER_ERROR_HANDLE), never a crash. What vkinfer_*_open gives belongs to the caller until the
 * matching vkinfer_*_close.
 *
 * Errors. Functions that can fail return a vkinfer_status: 0, a positive note, or a negative error whose one-line text
 * vkinfer_last_error() gives. Out parameters are written only where the result is not negative, unless said otherwise.
 *
 * Structs. The first member of options and of what is filled in is `size`: the caller's sizeof. Set it (the functions
 * *_default do) and programs go on working with newer libraries, whose structs are longer.
 *
 * Texts are UTF-8. Paths, names and stop texts end with a 0 byte; a text to tokenise has a length and may hold 0 bytes.
 * A buffer comes with its capacity in elements; the count that is needed is always told, and a buffer that is too small
 * is VKINFER_ERROR_BUFFER. A NULL buffer with capacity 0 asks for the count alone and succeeds.
 *
 * Failing devices. A device that fails ends generations under way (VKINFER_FINISH_FAILED); those that wait go on, and the
 * engine stays usable. Of a mesh, devices may be lost for good: the engine then loads the model onto those that are left,
 * on its own thread, as tensor_parallel times pipeline_parallel of them as fit; generations that are started meanwhile wait.
 * vkinfer_engine_inspect tells what it runs on then (the context may be shorter), the log says so, and sessions keep their
 * texts. Where no device can go on, everything that needs one returns VKINFER_ERROR_DEVICE.
 *
 * Threads. Every function can be called from any thread at any time, also with the same handle, and needs a stack of
 * 64 KiB at most. An engine has a thread of its own (with data_parallel, each copy of the model has), which does all the work on
 * the device; signals are blocked there, and none of the library's threads outlives its engine.
 * Pointers inside a vkinfer_token stay valid until the next call of vkinfer_session_next, vkinfer_session_run,
 * vkinfer_session_start, vkinfer_session_close or vkinfer_engine_wait that concerns its session.
 *
 * Processes. A process may fork and then open models and engines. Engines and sessions opened before a fork cannot be
 * used in the child (VKINFER_ERROR_STATE). The library can be unloaded (dlclose) when all engines are closed.
 * A model's file is mapped into memory: cutting it short while it is open ends the process (replacing it is safe).
 */
#ifndef VKINFER_H
#define VKINFER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VKINFER_VERSION_MAJOR 0
#define VKINFER_VERSION_MINOR 1
#define VKINFER_VERSION_PATCH 0

/* ---- Results ---------------------------------------------------------------------------------------------------- */

typedef int32_t vkinfer_status;

#define VKINFER_OK 0
#define VKINFER_DONE 1                 /* a generation has ended: nothing more comes */
#define VKINFER_TIMEOUT 2              /* nothing came within the time */
#define VKINFER_ERROR_ARGUMENT (-1)    /* NULL or a value out of its range */
#define VKINFER_ERROR_HANDLE (-2)      /* NULL, closed, of another kind or no handle at all */
#define VKINFER_ERROR_STATE (-3)       /* not now: the session generates, or the process forked */
#define VKINFER_ERROR_FILE (-4)        /* a file cannot be read or written, or is damaged */
#define VKINFER_ERROR_MODEL (-5)       /* the model is not supported or contradicts itself */
#define VKINFER_ERROR_DEVICE (-6)      /* no Vulkan, no such device, or it failed */
#define VKINFER_ERROR_MEMORY (-7)      /* the device or the machine has not enough memory */
#define VKINFER_ERROR_PROMPT (-8)      /* no tokens, too many for the context, or not of the vocabulary */
#define VKINFER_ERROR_UNSUPPORTED (-9) /* this model or build cannot do that */
#define VKINFER_ERROR_CANCELLED (-10)  /* a callback asked to stop */
#define VKINFER_ERROR_BUFFER (-11)     /* the buffer is too small: the count says what is needed */
#define VKINFER_ERROR_INTERNAL (-12)   /* a fault of the library */

/* The text of this thread's last error: one line that says what, where and what to do. Never NULL; empty before the
 * first error. The library owns it; it changes with the thread's next error. */
const char *vkinfer_last_error(void);

/* The name of a status, such as "VKINFER_ERROR_FILE"; "unknown" for others. A constant. */
const char *vkinfer_status_name(vkinfer_status status);

/* The library's version, such as "0.1.0"; and how it was built, one line. Constants. */
const char *vkinfer_version(void);
const char *vkinfer_build_info(void);

/* ---- Handles ---------------------------------------------------------------------------------------------------- */

typedef struct vkinfer_model vkinfer_model;
typedef struct vkinfer_engine vkinfer_engine;
typedef struct vkinfer_session vkinfer_session;

/* ---- Devices ---------------------------------------------------------------------------------------------------- */

#define VKINFER_DEVICE_OTHER 0
#define VKINFER_DEVICE_DISCRETE 1
#define VKINFER_DEVICE_INTEGRATED 2
#define VKINFER_DEVICE_VIRTUAL 3
#define VKINFER_DEVICE_CPU 4 /* a driver that runs shaders on the CPU: slow */

typedef struct vkinfer_device_info {
  uint32_t size;
  uint32_t index; /* what vkinfer_engine_options.device takes, as text */
  uint32_t kind;  /* VKINFER_DEVICE_* */
  uint32_t vendor_id;
  uint32_t device_id;
  int32_t usable;     /* 0: `reason` says why not */
  int32_t is_default; /* 1: an engine that names no device takes this one */
  int32_t reserved;
  uint64_t memory_bytes; /* device-local memory */
  uint64_t free_bytes;   /* what this process could take now; 0 if the driver does not tell */
  char uuid[40];         /* 32 hexadecimal digits, the same in every process */
  char name[256];
  char driver[256]; /* the driver's name and version */
  char reason[256];
} vkinfer_device_info;

/* Lists the Vulkan devices, best first.
 *
 * devices[0].size must be set, and gives the distance of the elements; the others are filled in. `count` gets how many
 * devices there are. Without any, the error is VKINFER_ERROR_DEVICE. Takes some 10 ms to 1 s. */
vkinfer_status vkinfer_devices(vkinfer_device_info *devices, size_t capacity, size_t *count);

/* ---- Models ----------------------------------------------------------------------------------------------------- */

/* Opens and checks a GGUF file, any part of a split one. No device is involved, and no weight is read. The caller closes
 * the model. VKINFER_ERROR_FILE: it cannot be read, or is damaged. VKINFER_ERROR_MODEL: its architecture or tokenizer is not
 * supported, or what it says of itself does not fit together. */
vkinfer_status vkinfer_model_open(const char *path, vkinfer_model **model);

/* Gives a model up; engines made from it keep what they need. */
vkinfer_status vkinfer_model_close(vkinfer_model *model);

typedef struct vkinfer_model_info {
  uint32_t size;
  uint32_t context_length;  /* tokens that it was trained for */
  uint32_t vocabulary_size; /* logits per token; token ids are below */
  uint32_t layers;
  uint32_t width; /* elements of the residual stream */
  uint32_t feed_forward_width;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t head_size;
  int32_t bos; /* the token that begins a text; -1 for none */
  int32_t eos; /* the token that ends one; -1 for none */
  int32_t adds_bos;
  uint64_t weight_count;
  uint64_t file_bytes; /* of all tensors */
  char architecture[64];
  char name[256]; /* empty if the file gives none */
} vkinfer_model_info;

/* The model's shape and names, out of its file. `info->size` must be set. */
vkinfer_status vkinfer_model_inspect(vkinfer_model *model, vkinfer_model_info *info);

/* A value of the file's metadata as text, such as "tokenizer.chat_template" or "general.license", with a 0 byte at the
 * end. `length` gets its bytes without that one; `capacity` must have room for it. VKINFER_ERROR_ARGUMENT if there is no
 * such key or its value is an array. */
vkinfer_status vkinfer_model_metadata(
    vkinfer_model *model, const char *key, char *text, size_t capacity, size_t *length);

#define VKINFER_ADD_SPECIAL 1u   /* begin-of-text and end-of-text tokens where the model expects them */
#define VKINFER_PARSE_SPECIAL 2u /* names of special tokens ("<|im_start|>") become those tokens: not for foreign text */
#define VKINFER_SHOW_SPECIAL 4u  /* detokenise: special tokens appear by name */

/* The tokens of `length` bytes of text, which must be UTF-8. `flags`: VKINFER_ADD_SPECIAL, VKINFER_PARSE_SPECIAL. */
vkinfer_status vkinfer_tokenize(
    vkinfer_model *model, const char *text, size_t length, uint32_t flags, int32_t *tokens, size_t capacity,
    size_t *count);

/* The text of tokens, from the start of a text, with a 0 byte at the end; bytes that are no UTF-8 become U+FFFD.
 * `length` gets the bytes without that last one; `capacity` must have room for it. `flags`: VKINFER_SHOW_SPECIAL. */
vkinfer_status vkinfer_detokenize(
    vkinfer_model *model, const int32_t *tokens, size_t count, uint32_t flags, char *text, size_t capacity,
    size_t *length);

/* Whether a token ends texts: 1 or 0 in `ends`. */
vkinfer_status vkinfer_token_ends(vkinfer_model *model, int32_t token, int32_t *ends);

/* ---- Engines ---------------------------------------------------------------------------------------------------- */

#define VKINFER_STAGE_WEIGHTS 0 /* done and total: bytes */
#define VKINFER_STAGE_KERNELS 1 /* done: milliseconds so far; total: 0, nobody knows */

/* How far loading is. Called some times a second on a thread of the library while vkinfer_engine_open waits. Not 0 stops:
 * the result is VKINFER_ERROR_CANCELLED. Copies of a model (data_parallel) are loaded one after the other. */
typedef int32_t (*vkinfer_progress)(void *user, uint32_t stage, uint64_t done, uint64_t total);

#define VKINFER_LOG_ERROR 0
#define VKINFER_LOG_INFO 1

/* One line, without a line feed, valid during the call: what was decided while loading, devices that failed or were lost.
 * Called on a thread of the library, which waits for it (with data_parallel perhaps on several at a time): it must not
 * close the engine. */
typedef void (*vkinfer_log)(void *user, uint32_t level, const char *text);

typedef struct vkinfer_engine_options {
  uint32_t size;
  uint32_t context_length;  /* tokens of prompt and text of a session; 0: up to 4096, as the model and memory allow */
  uint32_t parallel;        /* most sessions that generate at the same time, others wait; 1 to 4096. Default 1 */
  uint32_t prompt_chunk;    /* most tokens of a prompt processed at once; 0 chooses */
  uint32_t expected_prompt; /* tokens of a usual prompt, compiled for while loading; 0: at the first use. Default 16 */
  int32_t no_tuning;        /* 1: products are cut by rule, not measured at a device's first use */
  uint64_t cache_tokens;    /* tokens of all sessions whose keys and values are kept; 0 chooses */
  uint64_t gpu_memory;      /* bytes of device memory to use at most; 0: what is free. Other weights stream */
  uint64_t host_memory;     /* bytes of host memory for weights that stream; 0 chooses */
  const char *device;       /* an index, or part of a name; NULL: the best */
  const char *mesh;         /* the devices of a mesh, such as "0,1"; one may be there several times. NULL: `device` */
  const char *kv_type;      /* the type of keys and values: "f16" or "q8_0"; NULL: f16 */
  const char *cache_directory; /* where compiled kernels are kept; NULL: the user's cache; "": nowhere */
  vkinfer_progress progress;   /* or NULL */
  void *progress_user;
  vkinfer_log log; /* or NULL */
  void *log_user;
  /* A mesh has tensor_parallel times pipeline_parallel devices. Without either (and data_parallel), `mesh` splits
   * every layer over all that it names. */
  uint32_t tensor_parallel;   /* devices that split every layer between them; 0 chooses */
  uint32_t pipeline_parallel; /* stages of consecutive layers, on devices of their own; 0 chooses */
  uint32_t weights_from;      /* VKINFER_WEIGHTS_*: where weights stream from that the device has no room for */
  int32_t prefetch;           /* copies of them ahead of the one computed with; -1: as memory allows. Default -1 */
  int32_t no_overlap;         /* 1: a stage of a token waits for the one before, also on devices that need not */
  int32_t paced;              /* 1: texts get tokens evenly while prompts come; steps then depend on time */
  uint32_t pooling;           /* VKINFER_POOLING_*: what embeddings are made of */
  int32_t no_rebuild;         /* 1: an engine that loses a device of its mesh does not go on with those left */
  uint32_t kv_offload;        /* VKINFER_KV_OFFLOAD_*: keys and values that wait in host memory */
  uint32_t mesh_path;         /* VKINFER_MESH_PATH_*: how the devices of a mesh wait for one another */
  /* Copies of the model, each with a thread and tensor_parallel times pipeline_parallel devices of its own (`mesh` then
   * names those of one copy after the other); they share out what sessions generate, and `parallel` is for all together.
   * A session stays with the copy that knows its text while that has room. 0 and 1: one copy; at most 64. */
  uint32_t data_parallel;
  uint32_t stage_count;         /* of stage_layers: 0, or as many as pipeline_parallel */
  const uint32_t *stage_layers; /* layers of each stage; NULL: what takes all as long, as far as memory allows */
  uint32_t mesh_memory; /* VKINFER_MESH_MEMORY_*: where the devices of a mesh leave things for one another */
  uint32_t reserved;
} vkinfer_engine_options;

#define VKINFER_WEIGHTS_AUTO 0 /* from host memory as far as that goes */
#define VKINFER_WEIGHTS_HOST 1
#define VKINFER_WEIGHTS_FILE 2

/* Keys and values come to the device layer by layer while others compute; on a mesh each device brings its own share.
 * Results do not depend on it. */
#define VKINFER_KV_OFFLOAD_AUTO 0 /* of as many layers as it takes, if the device has no room for all */
#define VKINFER_KV_OFFLOAD_ON 1   /* of all layers */
#define VKINFER_KV_OFFLOAD_OFF 2  /* none: a context that does not fit is shorter, or an error */

#define VKINFER_MESH_PATH_AUTO 0 /* the fastest of those that a trial finds to work */
#define VKINFER_MESH_PATH_FLAGS 1
#define VKINFER_MESH_PATH_SEMAPHORES 2 /* of one physical device, there several times */
#define VKINFER_MESH_PATH_THREADS 3

#define VKINFER_MESH_MEMORY_AUTO 0 /* the fastest of those that a trial finds to work */
#define VKINFER_MESH_MEMORY_HOST 1
#define VKINFER_MESH_MEMORY_DEVICE 2 /* of the device that reads */

#define VKINFER_POOLING_MODEL 0 /* as the model's file says, else the last token's */
#define VKINFER_POOLING_LAST 1
#define VKINFER_POOLING_MEAN 2

/* Fills in the defaults of the first `size` bytes. */
vkinfer_status vkinfer_engine_options_default(vkinfer_engine_options *options, size_t size);

/* Loads a model onto a device: takes from tenths of a second to minutes. `options` may be NULL, and is not needed after
 * the call. The caller closes the engine. VKINFER_ERROR_ARGUMENT: an option that is not possible, or devices that the model
 * cannot be split over. VKINFER_ERROR_DEVICE: no Vulkan, or no such device. VKINFER_ERROR_MEMORY: no room for weights or
 * context. VKINFER_ERROR_FILE: weights cannot be read. */
vkinfer_status vkinfer_engine_open(
    vkinfer_model *model, const vkinfer_engine_options *options, vkinfer_engine **engine);

/* Ends all of its sessions, waits for the steps under way, and frees the devices. Calls that wait for its sessions on
 * other threads return VKINFER_ERROR_HANDLE. Not from a callback on the engine's thread: VKINFER_ERROR_STATE. */
vkinfer_status vkinfer_engine_close(vkinfer_engine *engine);

typedef struct vkinfer_engine_info {
  uint32_t size;
  uint32_t context_length;
  uint32_t parallel;
  int32_t is_cpu;
  uint64_t cache_tokens;
  uint64_t memory_bytes; /* device memory in use */
  uint64_t memory_peak;  /* the most that ever was */
  char device_name[256];
  uint64_t streamed_bytes; /* of weights, that every step brings to the device */
  uint32_t device_count;   /* of the mesh; 1 without one. Fewer after some were lost; 0 if none runs the model any more */
  uint32_t lost_count;     /* devices of the mesh that were lost */
  uint32_t engine_count;   /* copies of the model (data_parallel): numbers above are sums, the context the shortest */
  uint32_t reserved;
} vkinfer_engine_info;

/* What an engine runs on, its limits and its memory, as they are now. `info->size` must be set. Does not wait for steps. */
vkinfer_status vkinfer_engine_inspect(vkinfer_engine *engine, vkinfer_engine_info *info);

/* Waits until some session of the engine has a token or an end to read with vkinfer_session_next, and gives its handle.
 * One thread can serve all sessions so. Milliseconds; 0 only looks, -1 waits for ever.
 * VKINFER_TIMEOUT: none within the time. VKINFER_DONE: nothing is under way. */
vkinfer_status vkinfer_engine_wait(vkinfer_engine *engine, int32_t timeout_ms, vkinfer_session **session);

/* ---- Sessions --------------------------------------------------------------------------------------------------- */

/* A new, empty text. Costs nothing until it generates. The caller closes it, or its engine. */
vkinfer_status vkinfer_session_open(vkinfer_engine *engine, vkinfer_session **session);

/* Ends the session, also while it generates or another thread waits for it (which gets VKINFER_ERROR_HANDLE). */
vkinfer_status vkinfer_session_close(vkinfer_session *session);

/* Appends to the text. Nothing is computed yet, and nothing of what is handed over is needed after the call.
 * VKINFER_ERROR_STATE while it generates; tokens that a finished generation has left unread are dropped (they are part of
 * the text). VKINFER_ERROR_PROMPT: a token is not of the vocabulary. `flags`: as for vkinfer_tokenize. */
vkinfer_status vkinfer_session_feed(vkinfer_session *session, const int32_t *tokens, size_t count);
vkinfer_status vkinfer_session_feed_text(
    vkinfer_session *session, const char *text, size_t length, uint32_t flags);

/* The tokens of the text so far, those generated among them. */
vkinfer_status vkinfer_session_tokens(vkinfer_session *session, int32_t *tokens, size_t capacity, size_t *count);

/* Shortens the text to its first `count` tokens. VKINFER_ERROR_ARGUMENT if it has fewer, VKINFER_ERROR_STATE while it
 * generates. */
vkinfer_status vkinfer_session_truncate(vkinfer_session *session, size_t count);

typedef struct vkinfer_generation_options {
  uint32_t size;
  int32_t max_tokens;      /* most to generate; -1: to the end of the context. Default -1 */
  float temperature;       /* 0 always takes the best token. Default 0 */
  float top_p;             /* the best tokens that together have this probability; 1 keeps all. Default 1 */
  float min_p;             /* tokens at least this fraction as probable as the best; 0 keeps all. Default 0 */
  float repeat_penalty;    /* logits of tokens in the text are divided by it, if negative multiplied. Default 1 */
  float presence_penalty;  /* subtracted from logits of tokens generated before. Default 0 */
  float frequency_penalty; /* the same, for each time that they were. Default 0 */
  uint32_t top_k;          /* so many best tokens; 0 keeps all. Default 0 */
  int32_t logprobs;        /* -1 none; 0 to 100: the token's, and those of so many most probable ones. Default -1 */
  uint64_t seed;           /* the same seed, text and device give the same tokens. Default 0 */
  int32_t ignore_end;      /* 1: tokens that end a text are ordinary ones */
  uint32_t stop_count;
  const char *const *stop; /* generation ends before any of these texts; at most 64 of at most 4096 bytes */
} vkinfer_generation_options;

/* Fills in the defaults of the first `size` bytes. */
vkinfer_status vkinfer_generation_options_default(vkinfer_generation_options *options, size_t size);

typedef struct vkinfer_logprob {
  int32_t token;
  float logprob; /* natural logarithm of the probability, after penalties, before temperature and filters */
} vkinfer_logprob;

typedef struct vkinfer_token {
  uint32_t size;
  int32_t id;               /* -1: only text, which was held back since a stop text could have begun with it */
  vkinfer_session *session; /* whose it is */
  const char *text;         /* whole characters that are sure to be part of the text, perhaps none; ends with 0 */
  size_t text_length;       /* bytes, without the 0 */
  float logprob;            /* if asked for */
  uint32_t top_count;
  const vkinfer_logprob *top; /* best first */
} vkinfer_token;

/* Begins to continue the text, on the engine's thread, and returns at once. `options` may be NULL, and is not needed after
 * the call. What the engine knows of a text from before (full pages of 32 tokens) is not computed again.
 * VKINFER_ERROR_PROMPT: the text is empty or longer than the context. VKINFER_ERROR_STATE: it generates already. */
vkinfer_status vkinfer_session_start(vkinfer_session *session, const vkinfer_generation_options *options);

/* The next token of the generation that was started. Milliseconds to wait; 0 only looks, -1 waits for ever.
 * VKINFER_OK: `token` is filled in (its `size` must be set). VKINFER_DONE: the generation has ended, and
 * vkinfer_session_result says how. VKINFER_TIMEOUT: none yet. VKINFER_ERROR_STATE: none was started.
 * VKINFER_ERROR_DEVICE, once: the device failed; VKINFER_DONE is next. */
vkinfer_status vkinfer_session_next(vkinfer_session *session, int32_t timeout_ms, vkinfer_token *token);

/* Called by vkinfer_session_run on the thread that runs it; may call anything. Not 0 ends the generation. */
typedef int32_t (*vkinfer_token_callback)(void *user, const vkinfer_token *token);

/* Starts, and calls `callback` (may be NULL) for every token until the generation ends. VKINFER_OK at its end, also when
 * it was cancelled: see vkinfer_session_result. Errors are those of vkinfer_session_start, VKINFER_ERROR_DEVICE when the
 * device fails, and VKINFER_ERROR_HANDLE when the callback or another thread closes the session or its engine. */
vkinfer_status vkinfer_session_run(
    vkinfer_session *session, const vkinfer_generation_options *options, vkinfer_token_callback callback,
    void *user);

/* Ends a generation with what there is; nothing if none is under way. Does not wait: tokens drawn so far can still be
 * read, then VKINFER_DONE comes. */
vkinfer_status vkinfer_session_cancel(vkinfer_session *session);

#define VKINFER_FINISH_NONE 0      /* it still generates, or never did */
#define VKINFER_FINISH_STOP 1      /* the model ended the text, or a stop text came */
#define VKINFER_FINISH_LENGTH 2    /* as many as asked for, or as the context holds */
#define VKINFER_FINISH_CANCELLED 3
#define VKINFER_FINISH_FAILED 4 /* the device failed */

typedef struct vkinfer_result {
  uint32_t size;
  int32_t finish; /* VKINFER_FINISH_* */
  uint64_t prompt_tokens;
  uint64_t shared_tokens;    /* of the prompt: their keys and values were there */
  uint64_t generated_tokens; /* without one that ended the text */
  double first_seconds;      /* from the start to the first token */
  double decode_seconds;     /* from the first token to the last */
} vkinfer_result;

/* How the last generation went. `result->size` must be set. */
vkinfer_status vkinfer_session_result(vkinfer_session *session, vkinfer_result *result);

/* The logits after the text's last token: one for each token of the vocabulary, computed now, with other sessions. The
 * text stays as it is, and must be shorter than the context. VKINFER_ERROR_STATE while it generates. */
vkinfer_status vkinfer_session_logits(vkinfer_session *session, float *logits, size_t capacity, size_t *count);

/* Writes the text and what the engine knows of its keys and values to a file, whole or not at all. The file does not
 * depend on the devices: what a mesh has saved, one device or another mesh can restore, and the other way.
 * VKINFER_ERROR_FILE: it cannot be written. VKINFER_ERROR_STATE while it generates. */
vkinfer_status vkinfer_session_save(vkinfer_session *session, const char *path);

/* Replaces the text by that of a file of vkinfer_session_save, and hands its keys and values to the engine: generation
 * goes on without computing the prompt again. The file must be of the same model and the same kv_type (VKINFER_ERROR_MODEL
 * otherwise), its text no longer than the context (VKINFER_ERROR_PROMPT); a damaged one is VKINFER_ERROR_FILE. After an
 * error the session is as before. A file made on purpose can make the model say anything: restore those you trust. */
vkinfer_status vkinfer_session_restore(vkinfer_session *session, const char *path);

/* The text's embedding: as many numbers as vkinfer_model_info.width, computed now, with other sessions. It is the state of
 * the last token, or the mean over all tokens (vkinfer_engine_options.pooling), after the last layer and the output norm.
 * Not scaled to length 1. The text stays as it is, and must be shorter than the context. VKINFER_ERROR_STATE while it
 * generates. */
vkinfer_status vkinfer_session_embedding(vkinfer_session *session, float *values, size_t capacity, size_t *count);

#ifdef __cplusplus
}
#endif

#endif
