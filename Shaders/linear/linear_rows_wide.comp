#version 460
// linear_rows for drivers with 64-bit integers.
//! formats: all
#define WIDE_LOADS
#include FORMAT_FILE
#include "linear/constants.glsl"
#define FORMAT_KERNEL
#include FORMAT_FILE
#include "linear/rows.glsl"
