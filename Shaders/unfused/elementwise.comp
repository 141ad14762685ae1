#version 460
// An operation on every element of a vector for each token, by itself: what other steps do on the way.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint OPERATION = OPERATION_ADD;
layout(constant_id = 2) const uint ACTIVATION = ACTIVATION_SILU;

layout(push_constant) uniform Push { OperationPush push; };

#include "common/activate.glsl"
#include "common/softcap.glsl"

uint place(uint row, uint stride, uint element) {
  return row * stride + (OPERATION == OPERATION_SOFTCAP ? element : activation_index(element));
}

void main() {
  uint i = gl_GlobalInvocationID.x;
  uint row = gl_WorkGroupID.y;
  uint count = OPERATION == OPERATION_SOFTCAP ? push.step.output_count : push.step.row_count;
  if (i >= push.width || row >= count) return;
  float x = push.inputs.at[place(row, push.input_stride, push.input_first + i)];
  if (OPERATION == OPERATION_ACTIVATE) {
    x = activate(x);
  } else if (OPERATION == OPERATION_SOFTCAP) {
    x = softcapped(x, push.parameter);
  } else if (OPERATION == OPERATION_BIAS) {
    x += push.operand.at[i];
  } else {
    float y = push.operand.at[place(row, push.operand_stride, push.operand_first + i)];
    x = OPERATION == OPERATION_ADD ? x + y : x * y;
  }
  push.outputs.at[place(row, push.output_stride, push.output_first + i)] = x;
}
