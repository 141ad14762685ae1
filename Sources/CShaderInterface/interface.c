#include "shader_interface.h"
