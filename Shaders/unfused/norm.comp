#version 460
// Root-mean-square norms by themselves: a workgroup takes one vector of one token.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool HEADS = false;  // of heads, whose weight lies in plain order

layout(push_constant) uniform Push { OperationPush push; };

#include "common/workgroup_sum.glsl"

void main() {
  uint row = gl_WorkGroupID.x;
  if (row >= push.step.row_count) return;
  uint first = gl_WorkGroupID.y * push.width;
  float squares = 0;
  for (uint i = gl_LocalInvocationIndex; i < push.width; i += gl_WorkGroupSize.x) {
    float x = push.inputs.at[row * push.input_stride + activation_index(push.input_first + first + i)];
    squares = fma(x, x, squares);
  }
  float scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.parameter);
  for (uint i = gl_LocalInvocationIndex; i < push.width; i += gl_WorkGroupSize.x) {
    float x = push.inputs.at[row * push.input_stride + activation_index(push.input_first + first + i)];
    float weight = push.operand.at[HEADS ? i : activation_index(i)];
    push.outputs.at[row * push.output_stride + activation_index(push.output_first + first + i)] = x * scale * weight;
  }
}
