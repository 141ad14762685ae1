#version 460
// The linear kernel with float32 inputs: every weight format, on every device.
//! formats: all
#define CHAINED
#include FORMAT_FILE
#include "linear/constants.glsl"
#define FORMAT_KERNEL
#include FORMAT_FILE
#include "linear/linear.glsl"
