// How devices of a mesh meet: each tells the others how far it is, and waits until they are as far, by counts in memory
// that all share. What was written before a count can be seen by those that wait for it.
//
// Some devices keep what they once read of host memory in their caches until the next submission, whatever is written
// there meanwhile, and no access that Vulkan has goes past that. There a count is left in many lines, and each look takes
// a line that the workgroup has not looked at; where several wait, they look at the same ones about the same time, and
// one that starts later finds the count where the first did.
//
// A wait ends when the others have come, when the host ends it, which has a clock, or after so many looks that something
// is wrong.
//
// Wants CHAINED, the specialization constants PATIENCE (looks), SLOTS (places for the counts of a device), LINES (that a
// count is left in) and END_LINES (likewise in the last slot, where steps end), and MEETING: what has the addresses and
// the devices (`MeetingData`, or `ExchangePush`).

// The host is told how far the device is only at the ends of steps and where waits are long: what is written to its memory
// holds up the barrier after it.
const uint LOOKS = 64;
const uint EAGER_LINES = 32;  // that are looked at one after the other; then there are pauses, longer and longer

uint line_count(uint slot) { return slot == SLOTS - 1 ? END_LINES : LINES; }

uint place(uint device, uint slot, uint line) {
  return (device * ((SLOTS - 1) * LINES + END_LINES) + slot * LINES + line) * FLAG_WORDS;
}

void report(uint count) { atomicStore(MEETING.status.at[MESH_STATUS_COUNT], count, gl_ScopeDevice, 0, 0); }

bool is_abandoned() { return atomicLoad(MEETING.abandoned.at[0], gl_ScopeDevice, 0, 0) != 0; }

bool has_given_up() { return atomicLoad(MEETING.status.at[MESH_STATUS_GAVE_UP], gl_ScopeDevice, 0, 0) != 0; }

// Looks at the device's own memory for which a line is left alone: on GPUs all together outlast PATIENCE. For the ends
// of steps, which may take long, a pause is a sixteenth of the time so far.
uint pause_before(uint line, uint slot) {
  return line < EAGER_LINES ? 0 : 1u << (line - EAGER_LINES) / (slot == SLOTS - 1 ? 16 : 3);
}

// Leaves the device's own count in a slot. The workgroup calls it.
void tell(uint count, uint slot) {
  memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsRelease | gl_SemanticsMakeAvailable);
  for (uint line = gl_LocalInvocationIndex; line < line_count(slot); line += gl_WorkGroupSize.x) {
    atomicStore(MEETING.flags.at[place(MEETING.own, slot, line)], count, gl_ScopeDevice, 0, 0);
  }
}

// Waits until the counts of all devices that are met are in a slot. The workgroup calls it; what the others have written
// is visible to the invocations that waited, and those after a barrier of the workgroup.
//
// `told` is the own count if the host is to know it once the wait is long; 0 if not.
void wait_for_others(uint wanted, uint slot, uint told) {
  for (uint i = gl_LocalInvocationIndex; i < MEETING.count; i += gl_WorkGroupSize.x) {
    uint peer = MEETING.first + i;
    if (peer == MEETING.own) continue;
    uint line = 0;
    uint due = 0;
    for (uint looks = 1;; looks++) {
      if (looks > due) {
        uint found = atomicLoad(MEETING.flags.at[place(peer, slot, line)], gl_ScopeDevice, 0, 0);
        if (int(found - wanted) >= 0) break;
        if (line + 1 < line_count(slot)) due = looks + pause_before(++line, slot);
      }
      if (looks >= due && looks % LOOKS != 0) continue;
      if (looks == LOOKS && told != 0) report(told);
      if (is_abandoned() || (looks % LOOKS == 0 && has_given_up())) break;
      if (looks < PATIENCE) continue;
      atomicStore(MEETING.status.at[MESH_STATUS_GAVE_UP], 1 + peer, gl_ScopeDevice, 0, 0);
      break;
    }
  }
  memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquire | gl_SemanticsMakeVisible);
}
