#version 460
// A chained stage that only counts: each word of the outputs is one more than a word of the inputs that another
// workgroup wrote. Some workgroups take their time, so that those of the next stage fill the device meanwhile.
#define CHAINED
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
const bool CHAIN = true;

layout(push_constant) uniform Push { ChainProbePush push; };
#include "common/chain.glsl"

const uint SLOW = 61;      // one workgroup of so many takes its time,
const uint ROUNDS = 4096;  // so many steps of arithmetic

void main() {
  wait_for_stage_before();
  uint count = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
  uint value = push.inputs.at[(gl_GlobalInvocationID.x + push.shift) % count] + 1;
  if (gl_WorkGroupID.x % SLOW == 0) {
    uint state = value;
    for (uint i = 0; i < ROUNDS; i++) state = state * 1664525u + 1013904223u;
    // Never so: the generator has no fixed point of that kind, which the compiler does not know.
    if (state == value + 1 && state == 0) value = 0;
  }
  push.outputs.at[gl_GlobalInvocationID.x] = value;
  finish_stage();
}
