#version 460
// The linear kernel with inputs in blocks of bytes: formats of small integers, on devices with packed dot products.
//! formats: q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0
//! needs: GL_EXT_integer_dot_product
#define CHAINED
#define BLOCK_INPUTS
#define INPUTS StageQuads
#include FORMAT_FILE
#include "linear/constants.glsl"
#define FORMAT_KERNEL
#include FORMAT_FILE
#include "linear/linear.glsl"
