#version 460
// Adds up what devices have left in memory that they share, always in the same order; a single part is copied.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;

layout(push_constant) uniform Push { SumPush push; };

void main() {
  uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  for (uint quad = gl_GlobalInvocationID.x; quad < push.quads; quad += stride) {
    vec4 sum = vec4(0);
    for (uint i = 0; i < push.count; i++) {
      uint rank = push.first + i;
      if (rank == push.rank) {
        sum += push.own.at[quad];
      } else {
        sum += push.parts.at[rank * push.rank_stride + quad];
      }
    }
    push.sum.at[quad] = sum;
    if (push.copies != 0) push.copy.at[quad] = sum;
  }
}
