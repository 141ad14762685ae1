#version 460
// A device of a mesh tells the others how far it is, and waits until they are as far: one workgroup, by memory that all
// share. What was written before the dispatch can be seen by those that wait for its count.
//
// Some devices keep what they once read of host memory in their caches until the next submission, whatever is written
// there meanwhile, and no access that Vulkan has goes past that. There a count is left in many lines, and each look takes
// a line that has not been looked at.
//
// A wait ends when the others have come, when the host ends it, which has a clock, or after so many looks that something
// is wrong.
#define CHAINED
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint PATIENCE = 1u << 27;  // looks
layout(constant_id = 2) const uint SLOTS = 1;            // places for the counts of a device
layout(constant_id = 3) const uint LINES = 1;            // that a count is left in
layout(constant_id = 4) const uint END_LINES = 1;        // likewise in the last slot, where steps end

layout(push_constant) uniform Push { ExchangePush push; };

// The host is told how far the device is only at the ends of steps and where waits are long: what is written to its memory
// holds up the barrier after it.
const uint LOOKS = 64;
const uint EAGER_LINES = 32;  // that are looked at one after the other; then there are pauses, longer and longer

uint line_count(uint slot) { return slot == SLOTS - 1 ? END_LINES : LINES; }

uint place(uint device, uint slot, uint line) {
  return (device * ((SLOTS - 1) * LINES + END_LINES) + slot * LINES + line) * FLAG_WORDS;
}

void report(uint count) { atomicStore(push.status.at[MESH_STATUS_COUNT], count, gl_ScopeDevice, 0, 0); }

bool is_abandoned() { return atomicLoad(push.abandoned.at[0], gl_ScopeDevice, 0, 0) != 0; }

bool has_given_up() { return atomicLoad(push.status.at[MESH_STATUS_GAVE_UP], gl_ScopeDevice, 0, 0) != 0; }

// Looks at the device's own memory for which a line is left alone: on GPUs all together outlast PATIENCE. For the ends
// of steps, which may take long, a pause is a sixteenth of the time so far.
uint pause_before(uint line, uint slot) {
  return line < EAGER_LINES ? 0 : 1u << (line - EAGER_LINES) / (slot == SLOTS - 1 ? 16 : 3);
}

void main() {
  uint base = push.step.at[MESH_STEP_BASE];
  if (push.reached != 0) {
    memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsRelease | gl_SemanticsMakeAvailable);
    for (uint line = gl_LocalInvocationIndex; line < line_count(push.own_slot); line += gl_WorkGroupSize.x) {
      atomicStore(push.flags.at[place(push.own, push.own_slot, line)], base + push.reached, gl_ScopeDevice, 0, 0);
    }
    if (push.reports != 0 && gl_LocalInvocationIndex == 0) report(base + push.reached);
  }
  uint wanted = base + push.wanted;
  if (push.wanted == 0) {
    if (push.step.at[MESH_STEP_NEEDS_DRAWN] == 0) return;
    wanted = push.step.at[MESH_STEP_DRAWN];
  }
  for (uint i = gl_LocalInvocationIndex; i < push.count; i += gl_WorkGroupSize.x) {
    uint peer = push.first + i;
    if (peer == push.own) continue;
    uint line = 0;
    uint due = 0;
    for (uint looks = 1;; looks++) {
      if (looks > due) {
        uint found = atomicLoad(push.flags.at[place(peer, push.wanted_slot, line)], gl_ScopeDevice, 0, 0);
        if (int(found - wanted) >= 0) break;
        if (line + 1 < line_count(push.wanted_slot)) due = looks + pause_before(++line, push.wanted_slot);
      }
      if (looks >= due && looks % LOOKS != 0) continue;
      if (looks == LOOKS && push.reached != 0) report(base + push.reached);
      if (is_abandoned() || (looks % LOOKS == 0 && has_given_up())) break;
      if (looks < PATIENCE) continue;
      atomicStore(push.status.at[MESH_STATUS_GAVE_UP], 1 + peer, gl_ScopeDevice, 0, 0);
      break;
    }
  }
  memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquire | gl_SemanticsMakeVisible);
}
