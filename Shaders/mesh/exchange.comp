#version 460
// A device of a mesh tells the others how far it is, and waits until they are as far: one workgroup.
#define CHAINED
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint PATIENCE = 1u << 27;
layout(constant_id = 2) const uint SLOTS = 1;
layout(constant_id = 3) const uint LINES = 1;
layout(constant_id = 4) const uint END_LINES = 1;

layout(push_constant) uniform Push { ExchangePush push; };

#define MEETING push
#include "mesh/meeting.glsl"

void main() {
  uint base = push.step.at[MESH_STEP_BASE];
  uint told = push.reached == 0 ? 0 : base + push.reached;
  if (push.reached != 0) {
    tell(told, push.own_slot);
    if (push.reports != 0 && gl_LocalInvocationIndex == 0) report(told);
  }
  uint wanted = base + push.wanted;
  if (push.wanted == 0) {
    if (push.step.at[MESH_STEP_NEEDS_DRAWN] == 0) return;
    wanted = push.step.at[MESH_STEP_DRAWN];
  }
  wait_for_others(wanted, push.wanted_slot, told);
}
