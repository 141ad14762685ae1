#version 460
// Where the elements of fragments of integer sums lie: each invocation tells which it holds.
//! needs: GL_KHR_cooperative_matrix
#include "common/types.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint M = 16;
layout(constant_id = 2) const uint N = 16;

layout(push_constant) uniform Push { FragmentProbePush push; };

// Each element is its own index, row after row.
shared int numbers[M * N];

void main() {
  for (uint i = gl_LocalInvocationIndex; i < M * N; i += gl_WorkGroupSize.x) numbers[i] = int(i);
  barrier();
  coopmat<int, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> sums;
  coopMatLoad(sums, numbers, 0, N, gl_CooperativeMatrixLayoutRowMajor);
  [[unroll]] for (uint e = 0; e < M * N / gl_WorkGroupSize.x; e++) {
    if (e < sums.length()) {
      push.elements.at[gl_SubgroupInvocationID * FRAGMENT_PROBE_ELEMENTS + e] = uint(sums[e]);
    }
  }
  if (gl_SubgroupInvocationID == 0) push.elements.at[FRAGMENT_PROBE_LENGTHS] = sums.length();
}
