#version 460
// Does as little as a dispatch can: one word a workgroup, written where the one before wrote.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;

layout(push_constant) uniform Push { TransferPush push; };

void main() {
  if (gl_LocalInvocationIndex == 0) push.destination.at[gl_WorkGroupID.x] = uvec4(gl_WorkGroupID.x);
}
