#version 460
// A device of a mesh tells the others how far it is, and waits until they are as far: one workgroup, by memory that all
// share. What was written before the dispatch can be seen by those that wait for its count.
//
// A wait ends when the others have come, when anyone has given up (also the host, which has a clock), or after so many
// looks that something is wrong.
#define CHAINED
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint PATIENCE = 1u << 24;  // looks

layout(push_constant) uniform Push { ExchangePush push; };

void main() {
  uint base = push.step.at[MESH_STEP_BASE];
  if (push.reached != 0 && gl_LocalInvocationIndex == 0) {
    memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsRelease | gl_SemanticsMakeAvailable);
    atomicStore(push.flags.at[push.own * FLAG_WORDS], base + push.reached, gl_ScopeDevice, 0, 0);
  }
  uint wanted = base + push.wanted;
  if (push.wanted == 0) {
    if (push.step.at[MESH_STEP_NEEDS_DRAWN] == 0) return;
    wanted = push.step.at[MESH_STEP_DRAWN];
  }
  uint abandoned = push.device_count * FLAG_WORDS;
  for (uint i = gl_LocalInvocationIndex; i < push.count; i += gl_WorkGroupSize.x) {
    uint peer = push.first + i;
    if (peer == push.own) continue;
    uint looks = 0;
    while (int(atomicLoad(push.flags.at[peer * FLAG_WORDS], gl_ScopeDevice, 0, 0) - wanted) < 0) {
      if (++looks % 16 != 0) continue;
      if (atomicLoad(push.flags.at[abandoned], gl_ScopeDevice, 0, 0) != 0) break;
      if (looks < PATIENCE) continue;
      atomicStore(push.flags.at[abandoned], 1 + push.own + (peer << 16), gl_ScopeDevice, 0, 0);
      break;
    }
  }
  memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquire | gl_SemanticsMakeVisible);
}
