#version 460
// Where the elements of fragments lie: each invocation tells which it holds of A, then which of B.
//! needs: GL_KHR_cooperative_matrix
#include "common/types.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint M = 16;
layout(constant_id = 2) const uint N = 8;
layout(constant_id = 3) const uint K = 16;

layout(push_constant) uniform Push { FragmentProbePush push; };

// Each element is its own index in a row after row, or for B column after column: float16 holds those.
const uint COUNT = (M > N ? M : N) * K;
shared uint numbers[COUNT / 2];

void main() {
  for (uint i = gl_LocalInvocationIndex; i < COUNT / 2; i += gl_WorkGroupSize.x) {
    numbers[i] = packHalf2x16(vec2(2 * i, 2 * i + 1));
  }
  barrier();
  coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a;
  coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
  coopMatLoad(a, numbers, 0, K / 2, gl_CooperativeMatrixLayoutRowMajor);
  coopMatLoad(b, numbers, 0, K / 2, gl_CooperativeMatrixLayoutColumnMajor);
  uint first = gl_SubgroupInvocationID * 2 * FRAGMENT_PROBE_ELEMENTS;
  [[unroll]] for (uint e = 0; e < M * K / gl_WorkGroupSize.x; e++) {
    if (e < a.length()) push.elements.at[first + e] = uint(a[e]);
  }
  [[unroll]] for (uint e = 0; e < K * N / gl_WorkGroupSize.x; e++) {
    if (e < b.length()) push.elements.at[first + FRAGMENT_PROBE_ELEMENTS + e] = uint(b[e]);
  }
  if (gl_SubgroupInvocationID == 0) {
    push.elements.at[FRAGMENT_PROBE_LENGTHS] = a.length();
    push.elements.at[FRAGMENT_PROBE_LENGTHS + 1] = b.length();
  }
}
