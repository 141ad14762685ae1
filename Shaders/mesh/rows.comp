#version 460
// Copies the rows of a step between arrays of different strides: into memory that devices share, and out of it.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool OUTPUTS = false;  // a row for each of the step's outputs, not for all its rows

layout(push_constant) uniform Push { RowsPush push; };

void main() {
  uint row = gl_WorkGroupID.y;
  if (row >= (OUTPUTS ? push.step.output_count : push.step.row_count)) return;
  uint quad = gl_GlobalInvocationID.x;
  if (quad >= push.quads) return;
  push.destination.at[row * push.destination_stride + quad] = push.source.at[row * push.source_stride + quad];
}
