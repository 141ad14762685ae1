#version 460
// Weights as float16 rows, for products of so many tokens that unpacking them once costs less than doing it in every
// workgroup that reads them. An invocation unpacks a chunk; through shared memory the workgroup stores in order.
//! formats: q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4
#include FORMAT_FILE
#include "common/types.glsl"
#include "common/bytes.glsl"
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(local_size_x_id = 0) in;

layout(push_constant) uniform Push { DequantizePush push; };

#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"
#include "matrix/halves.glsl"

const uint QUADS = CHUNK / 8;
shared uvec4 tile[gl_WorkGroupSize.x * QUADS];

// Where quad `j` of chunk `i` lies: eight neighbours that write together find different banks.
uint tile_place(uint i, uint j) { return i * QUADS + (j ^ (i / (8 / QUADS) % QUADS)); }

void main() {
  uint first = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x;
  if (first >= push.chunk_count) return;
  uint halves[CHUNK / 2];
  unpack_halves(load_chunk(push.first_chunk + min(first + gl_LocalInvocationIndex, push.chunk_count - 1)), halves);
  [[unroll]] for (uint j = 0; j < QUADS; j++) {
    tile[tile_place(gl_LocalInvocationIndex, j)] =
        uvec4(halves[4 * j], halves[4 * j + 1], halves[4 * j + 2], halves[4 * j + 3]);
  }
  barrier();
  [[unroll]] for (uint j = 0; j < QUADS; j++) {
    uint i = j * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    if (first * QUADS + i < push.chunk_count * QUADS) {
      push.outputs.at[first * QUADS + i] = tile[tile_place(i / QUADS, i % QUADS)];
    }
  }
}
