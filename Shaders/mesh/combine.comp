#version 460
// x = [x +] norm(sum over ranks of their parts), and what the next product wants of it: one workgroup a token.
//
// Parts lie in memory that the devices share. Every rank adds them in the same order, so all get the same bits.
#include "common/types.glsl"
#include "common/blocks.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint NEXT = NEXT_NONE;
layout(constant_id = 2) const bool RESIDUAL = true;
layout(constant_id = 3) const bool POST_NORM = false;

layout(push_constant) uniform Push { CombinePush push; };

#include "common/workgroup_sum.glsl"

vec4 sum_of_parts(uint quad) {
  uint place = gl_WorkGroupID.x * (push.part_stride / 4) + quad;
  vec4 sum = push.parts.at[place];
  for (uint rank = 1; rank < push.rank_count; rank++) sum += push.parts.at[rank * (push.rank_stride / 4) + place];
  return sum;
}

float block_value(uint block, uint i) {
  uint quad = activation_quad(8 * block + i / 4);
  return push.residual.at[gl_WorkGroupID.x * (push.residual_stride / 4) + quad][i % 4]
      * push.next.norm.at[4 * quad + i % 4];
}

void main() {
  uint row = gl_WorkGroupID.x;
  if (row >= push.step.row_count) return;
  uint blocks = push.width / 32;
  float scale = 1;
  if (POST_NORM) {
    float squares = 0;
    for (uint block = gl_LocalInvocationIndex; block < blocks; block += gl_WorkGroupSize.x) {
      for (uint j = 0; j < 8; j++) {
        vec4 part = sum_of_parts(activation_quad(8 * block + j));
        squares += dot(part, part);
      }
    }
    scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.epsilon);
  }
  float squares = 0;
  for (uint block = gl_LocalInvocationIndex; block < blocks; block += gl_WorkGroupSize.x) {
    for (uint j = 0; j < 8; j++) {
      uint quad = activation_quad(8 * block + j);
      uint place = row * (push.residual_stride / 4) + quad;
      vec4 x = sum_of_parts(quad);
      if (POST_NORM) x *= scale * push.post_norm.at[quad];
      if (RESIDUAL) x += push.residual.at[place];
      push.residual.at[place] = x;
      squares += dot(x, x);
      if (NEXT == NEXT_FLOATS) {
        [[unroll]] for (uint i = 0; i < 4; i++) {
          push.next.values.at[row * push.next.width + 4 * quad + i] =
              floatBitsToUint(x[i] * push.next.norm.at[4 * quad + i]);
        }
      }
    }
  }
  if (NEXT == NEXT_BYTES) {
    // A subgroup makes a block together, of what all invocations have written.
    memoryBarrierBuffer();
    barrier();
    for (uint block = gl_SubgroupID; block < blocks; block += gl_NumSubgroups) {
      store_block(push.next.values, push.next.scales, row, push.next.width, block, block);
    }
  }
  if (NEXT == NEXT_NONE) return;
  squares = workgroup_sum(squares);
  if (gl_LocalInvocationIndex == 0) push.next.squares.at[row] = squares;
}
