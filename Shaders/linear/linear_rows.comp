#version 460
// The linear kernel for devices that load lane by lane, CPU drivers: float32 inputs, lanes are rows.
//! formats: all
#include FORMAT_FILE
#include "linear/constants.glsl"
#define FORMAT_KERNEL
#include FORMAT_FILE
#include "linear/rows.glsl"
