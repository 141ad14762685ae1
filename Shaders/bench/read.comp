#version 460
// Reads memory as fast as it can: what a kernel that does nothing else would reach.
// A workgroup reads neighbouring pieces, LOADS 16-byte loads an invocation, all of them in flight at once.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint LOADS = 8;

layout(push_constant) uniform Push { TransferPush push; };

void main() {
  uint first = gl_WorkGroupID.x * (LOADS * gl_WorkGroupSize.x) + gl_LocalInvocationIndex;
  uvec4 values[LOADS];
  [[unroll]] for (uint i = 0; i < LOADS; i++) values[i] = push.source.at[first + i * gl_WorkGroupSize.x];
  uvec4 sum = uvec4(0);
  [[unroll]] for (uint i = 0; i < LOADS; i++) sum ^= values[i];
  // Never so for random data, which the compiler cannot know.
  if ((sum.x & sum.y & sum.z & sum.w) == 0xffffffffu) push.destination.at[0] = sum;
}
