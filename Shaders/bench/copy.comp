#version 460
// Copies memory, LOADS times 16 bytes an invocation.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint LOADS = 8;

layout(push_constant) uniform Push { TransferPush push; };

void main() {
  uint first = gl_WorkGroupID.x * (LOADS * gl_WorkGroupSize.x) + gl_LocalInvocationIndex;
  uvec4 values[LOADS];
  [[unroll]] for (uint i = 0; i < LOADS; i++) values[i] = push.source.at[first + i * gl_WorkGroupSize.x];
  [[unroll]] for (uint i = 0; i < LOADS; i++) push.destination.at[first + i * gl_WorkGroupSize.x] = values[i];
}
