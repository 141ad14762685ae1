#version 460
// Rope by itself, and the copy of heads to where attention reads them: an invocation for a pair of elements.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool ROTATE = true;
layout(constant_id = 2) const bool STORE = true;  // false: they stay where they are

layout(push_constant) uniform Push { HeadsPush push; };

#include "common/heads.glsl"

void main() {
  uint token = gl_WorkGroupID.y;
  uint head_size = push.extras.data.head_size;
  uint pair = gl_GlobalInvocationID.x;
  if (pair >= push.head_count * head_size / 2 || token >= push.step.row_count) return;
  uint row = push.first_head * head_size + 2 * pair;
  uint index = token * push.extras.data.scratch_stride + activation_index(row);
  vec2 values = vec2(push.extras.data.scratch.at[index], push.extras.data.scratch.at[index + 1]);
  HeadPlace place = head_place(row, token);
  if (ROTATE) values = rotate_head_pair(row, values, place);
  if (STORE) {
    store_rotated_pair(row, token, values, place);
  } else {
    push.extras.data.scratch.at[index] = values.x;
    push.extras.data.scratch.at[index + 1] = values.y;
  }
}
