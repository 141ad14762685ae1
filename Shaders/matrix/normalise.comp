#version 460
// Inputs of matrix products: norm(inputs), in float16 and plain order, one workgroup a token.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool NORM = true;     // false: as they are
layout(constant_id = 2) const bool ADDEND = false;  // inputs += norm(addend) comes first
layout(constant_id = 3) const bool GATHER = false;  // the step's output rows, not all its rows

layout(push_constant) uniform Push { NormalisePush push; };

shared float partial_sums[gl_WorkGroupSize.x];

// The sum over the workgroup, in a fixed order.
float workgroup_sum(float value) {
  value = subgroupAdd(value);
  barrier();
  if (gl_SubgroupInvocationID == 0) partial_sums[gl_SubgroupID] = value;
  barrier();
  float sum = 0;
  for (uint i = 0; i < gl_NumSubgroups; i++) sum += partial_sums[i];
  return sum;
}

uint half_pair(float a, float b) { return packHalf2x16(clamp(vec2(a, b), vec2(-65504.0), vec2(65504.0))); }

void main() {
  uint row = gl_WorkGroupID.x;
  if (row >= (GATHER ? push.step.output_count : push.step.row_count)) return;
  uint source = GATHER ? push.step.rows[row].output_row : row;
  uint input_base = source * push.input_stride;
  uint octets = push.width / 8;

  // An invocation takes the same octets in every pass: nothing passes between invocations through memory.
  if (ADDEND) {
    uint addend_base = source * push.addend_stride;
    float squares = 0;
    for (uint octet = gl_LocalInvocationIndex; octet < octets; octet += gl_WorkGroupSize.x) {
      [[unroll]] for (uint i = 0; i < 8; i++) {
        float value = push.addend.at[addend_base + activation_index(octet * 8 + i)];
        squares = fma(value, value, squares);
      }
    }
    float scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.addend_epsilon);
    for (uint octet = gl_LocalInvocationIndex; octet < octets; octet += gl_WorkGroupSize.x) {
      [[unroll]] for (uint i = 0; i < 8; i++) {
        uint index = activation_index(octet * 8 + i);
        push.inputs.at[input_base + index] +=
            push.addend.at[addend_base + index] * scale * push.addend_norm.at[index];
      }
    }
  }

  float scale = 1;
  if (NORM) {
    float squares = 0;
    for (uint octet = gl_LocalInvocationIndex; octet < octets; octet += gl_WorkGroupSize.x) {
      [[unroll]] for (uint i = 0; i < 8; i++) {
        float value = push.inputs.at[input_base + activation_index(octet * 8 + i)];
        squares = fma(value, value, squares);
      }
    }
    scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.epsilon);
  }
  for (uint octet = gl_LocalInvocationIndex; octet < octets; octet += gl_WorkGroupSize.x) {
    float x[8];
    [[unroll]] for (uint i = 0; i < 8; i++) {
      uint index = activation_index(octet * 8 + i);
      x[i] = push.inputs.at[input_base + index];
      if (NORM) x[i] *= scale * push.norm.at[index];
    }
    push.outputs.at[row * push.output_stride / 8 + octet] =
        uvec4(half_pair(x[0], x[1]), half_pair(x[2], x[3]), half_pair(x[4], x[5]), half_pair(x[6], x[7]));
  }
}
