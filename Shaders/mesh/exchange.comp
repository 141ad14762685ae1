#version 460
// A device of a mesh tells the others how far it is, and waits until they are as far: one workgroup, by memory that all
// share. What was written before the dispatch can be seen by those that wait for its count.
//
// A wait ends when the others have come, when the host ends it, which has a clock, or after so many looks that something
// is wrong.
#define CHAINED
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint PATIENCE = 1u << 24;  // looks

layout(push_constant) uniform Push { ExchangePush push; };

// The status lies in host memory, where looks take long, and what is written holds up the barrier after it: it is looked at
// now and then, and the host is told how far the device is only at the ends of steps and where waits are long.
const uint LOOKS = 64;

void report(uint count) { atomicStore(push.status.at[MESH_STATUS_COUNT], count, gl_ScopeDevice, 0, 0); }

bool is_given_up() {
  return (atomicLoad(push.status.at[MESH_STATUS_ABANDONED], gl_ScopeDevice, 0, 0)
      | atomicLoad(push.status.at[MESH_STATUS_GAVE_UP], gl_ScopeDevice, 0, 0)) != 0;
}

void main() {
  uint base = push.step.at[MESH_STEP_BASE];
  if (push.reached != 0 && gl_LocalInvocationIndex == 0) {
    memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsRelease | gl_SemanticsMakeAvailable);
    atomicStore(push.flags.at[push.own * FLAG_WORDS], base + push.reached, gl_ScopeDevice, 0, 0);
    if (push.reports != 0) report(base + push.reached);
  }
  uint wanted = base + push.wanted;
  if (push.wanted == 0) {
    if (push.step.at[MESH_STEP_NEEDS_DRAWN] == 0) return;
    wanted = push.step.at[MESH_STEP_DRAWN];
  }
  for (uint i = gl_LocalInvocationIndex; i < push.count; i += gl_WorkGroupSize.x) {
    uint peer = push.first + i;
    if (peer == push.own) continue;
    uint looks = 0;
    while (int(atomicLoad(push.flags.at[peer * FLAG_WORDS], gl_ScopeDevice, 0, 0) - wanted) < 0) {
      if (++looks % LOOKS != 0) continue;
      if (looks == LOOKS && push.reached != 0) report(base + push.reached);
      if (is_given_up()) break;
      if (looks < PATIENCE) continue;
      atomicStore(push.status.at[MESH_STATUS_GAVE_UP], 1 + peer, gl_ScopeDevice, 0, 0);
      break;
    }
  }
  memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquire | gl_SemanticsMakeVisible);
}
