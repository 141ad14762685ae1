// Chained stages: dispatches with no barrier between them. A stage starts while the one before still runs, as workgroups
// of that make room, loads what does not depend on it, and then waits until all of its workgroups are done. Memory
// stays busy where a barrier would drain the device and fill it again.
//
// That needs a device that starts all workgroups of a dispatch before any of the next one, which those that start are
// then sure to see the end of. No rule says so: the host tries it first (ChainProbe), and a wait ends after a time.
// Wants CHAIN, a specialization constant, `push.chain` and `push.step`.

// Looks at the link before a stage gives up: about a second. Where one has, the others do not wait either.
const uint CHAIN_PATIENCE = 1u << 20;

// Orders the workgroup's accesses to buffers before it before those after it.
void workgroup_barrier() {
  controlBarrier(
      gl_ScopeWorkgroup, gl_ScopeWorkgroup, gl_StorageSemanticsBuffer | gl_StorageSemanticsShared,
      gl_SemanticsAcquireRelease | gl_SemanticsMakeAvailable | gl_SemanticsMakeVisible);
}

// Returns when the stage before has done all its work, whose results are then visible. Every invocation calls it.
void wait_for_stage_before() {
  if (!CHAIN) return;
  if (gl_LocalInvocationIndex == 0) {
    uint wanted = push.chain.at[CHAIN_WANTED];
    uint looks = 0;
    while (atomicLoad(push.chain.at[CHAIN_DONE], gl_ScopeDevice, 0, 0) < wanted) {
      if (++looks % 1024 != 0) continue;
      if (push.step.abandoned != 0) break;
      if (looks < CHAIN_PATIENCE) continue;
      push.step.abandoned = 1;
      break;
    }
    memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquire | gl_SemanticsMakeVisible);
  }
  workgroup_barrier();
}

// Tells that the workgroup is done. Every workgroup of the stage calls it once, at its end.
void finish_stage() {
  if (!CHAIN) return;
  workgroup_barrier();
  if (gl_LocalInvocationIndex == 0) {
    memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsRelease | gl_SemanticsMakeAvailable);
    atomicAdd(push.chain.at[CHAIN_LINK_WORDS + CHAIN_DONE], 1, gl_ScopeDevice, 0, 0);
  }
}
