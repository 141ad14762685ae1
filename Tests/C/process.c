/* What a process does around the library: process MODEL LIBRARY LARGE_MODEL. Forks before opening and while an engine is
 * open, runs on threads with small stacks, uses Vulkan itself, and loads and unloads the library. */
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vulkan/vulkan.h>
#include "check.h"

static const char *path;

/* Everything that does more than look something up: a stack of 64 KiB is enough for it. */
static void *generate(void *user) {
  vkinfer_model *model;
  vkinfer_device_info devices[16];
  float values[259];
  int32_t tokens[64];
  size_t count;
  (void)user;
  devices[0].size = sizeof devices[0];
  OK(vkinfer_devices(devices, 16, &count));
  OK(vkinfer_model_open(path, &model));
  OK(vkinfer_tokenize(model, "a small stack", 13, VKINFER_ADD_SPECIAL, tokens, 64, &count));
  vkinfer_engine *engine = open_engine(model, 1);
  vkinfer_session *session = open_session(engine, "a small stack");
  vkinfer_generation_options options = tokens_wanted(4);
  OK(vkinfer_session_run(session, &options, NULL, NULL));
  OK(vkinfer_session_logits(session, values, 259, &count));
  OK(vkinfer_session_embedding(session, values, 259, &count));
  OK(vkinfer_engine_close(engine));
  OK(vkinfer_model_close(model));
  return NULL;
}

static void in_child(void (*body)(void *), void *user) {
  pid_t child = fork();
  EXPECT(child >= 0);
  if (child == 0) {
    body(user);
    exit(0);
  }
  int status = 0;
  EXPECT(waitpid(child, &status, 0) == child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void child_generates(void *user) { generate(user); }

static void child_of_open_engine(void *user) {
  vkinfer_session *session;
  STATUS(vkinfer_session_open(user, &session), VKINFER_ERROR_STATE);
  STATUS(vkinfer_engine_close(user), VKINFER_ERROR_STATE);
}

/* Ends with an engine at work: exit() must not crash. */
static void child_ends_at_work(void *user) {
  vkinfer_model *model;
  (void)user;
  OK(vkinfer_model_open(path, &model));
  vkinfer_session *session = open_session(open_engine(model, 1), "unfinished");
  vkinfer_generation_options options = tokens_wanted(200);
  OK(vkinfer_session_start(session, &options));
}

static void small_stack(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  EXPECT(pthread_attr_init(&attributes) == 0);
  EXPECT(pthread_attr_setstacksize(&attributes, 64 << 10) == 0);
  EXPECT(pthread_create(&thread, &attributes, generate, NULL) == 0);
  EXPECT(pthread_join(thread, NULL) == 0);
  pthread_attr_destroy(&attributes);
}

static VkDevice own_device(VkInstance *instance) {
  VkApplicationInfo application = {VK_STRUCTURE_TYPE_APPLICATION_INFO, NULL, "own", 1, NULL, 0, VK_API_VERSION_1_1};
  VkInstanceCreateInfo info = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, NULL, 0, &application, 0, NULL, 0, NULL};
  EXPECT(vkCreateInstance(&info, NULL, instance) == VK_SUCCESS);
  VkPhysicalDevice physical;
  uint32_t count = 1;
  VkResult result = vkEnumeratePhysicalDevices(*instance, &count, &physical);
  EXPECT(result == VK_SUCCESS || result == VK_INCOMPLETE);
  float priority = 1;
  VkDeviceQueueCreateInfo queue = {VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, NULL, 0, 0, 1, &priority};
  VkDeviceCreateInfo create = {VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, NULL, 0, 1, &queue, 0, NULL, 0, NULL, NULL};
  VkDevice device;
  EXPECT(vkCreateDevice(physical, &create, NULL, &device) == VK_SUCCESS);
  return device;
}

static int mapped(const char *name) {
  char line[1024];
  int found = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  EXPECT(maps != NULL);
  while (fgets(line, sizeof line, maps) != NULL) {
    found |= strstr(line, name) != NULL;
  }
  fclose(maps);
  return found;
}

/* How many threads this process has. */
static int thread_count(void) {
  char line[256];
  int count = 0;
  FILE *status = fopen("/proc/self/status", "r");
  EXPECT(status != NULL);
  while (count == 0 && fgets(line, sizeof line, status) != NULL) {
    sscanf(line, "Threads: %d", &count);
  }
  fclose(status);
  return count;
}

/* This program is linked to the library, so a copy under another name is what comes and goes. None of its threads stays: it
 * would run on in code that is gone. The model is large enough to be loaded by several, and a mesh has some of its own. */
static void load_and_unload(const char *library, const char *large) {
  const int before = thread_count();
  for (int round = 0; round < 4; round++) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    EXPECT(handle != NULL);
    vkinfer_status (*open_model)(const char *, vkinfer_model **);
    vkinfer_status (*open)(vkinfer_model *, const vkinfer_engine_options *, vkinfer_engine **);
    vkinfer_status (*close)(vkinfer_engine *);
    vkinfer_status (*set_default)(vkinfer_engine_options *, size_t);
    *(void **)&open_model = dlsym(handle, "vkinfer_model_open");
    *(void **)&open = dlsym(handle, "vkinfer_engine_open");
    *(void **)&close = dlsym(handle, "vkinfer_engine_close");
    *(void **)&set_default = dlsym(handle, "vkinfer_engine_options_default");
    vkinfer_model *model;
    vkinfer_engine *engine;
    vkinfer_engine_options options;
    EXPECT(set_default(&options, sizeof options) == VKINFER_OK);
    options.context_length = 256;
    options.tensor_parallel = round < 2 ? 1 : 2;
    EXPECT(open_model(large, &model) == VKINFER_OK && open(model, &options, &engine) == VKINFER_OK);
    /* Every other time the engine is left to the unloading. */
    EXPECT(round % 2 == 1 || close(engine) == VKINFER_OK);
    EXPECT(dlclose(handle) == 0);
    EXPECT(!mapped(library) && thread_count() == before);
  }
}

int main(int count, char **arguments) {
  EXPECT(count == 4);
  path = arguments[1];
  in_child(child_generates, NULL);
  in_child(child_ends_at_work, NULL);
  vkinfer_model *model;
  OK(vkinfer_model_open(path, &model));
  vkinfer_engine *engine = open_engine(model, 1);
  in_child(child_of_open_engine, engine);
  OK(vkinfer_engine_close(engine));
  OK(vkinfer_model_close(model));
  small_stack();

  VkInstance instance;
  VkDevice device = own_device(&instance);
  generate(NULL);
  EXPECT(vkDeviceWaitIdle(device) == VK_SUCCESS);
  vkDestroyDevice(device, NULL);
  vkDestroyInstance(instance, NULL);
  generate(NULL);
  load_and_unload(arguments[2], arguments[3]);
  return 0;
}
