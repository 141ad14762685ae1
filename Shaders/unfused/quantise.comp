#version 460
// Inputs of products in blocks of bytes, by itself: a subgroup makes a block.
#include "common/types.glsl"
#include "common/blocks.glsl"

layout(local_size_x_id = 0) in;

layout(push_constant) uniform Push { QuantisePush push; };

float block_value(uint block, uint i) {
  return push.inputs.at[gl_WorkGroupID.y * push.stride + activation_index(32 * block + i)];
}

void main() {
  uint row = gl_WorkGroupID.y;
  uint block = gl_WorkGroupID.x * gl_NumSubgroups + gl_SubgroupID;
  if (row >= push.step.row_count || block >= push.blocks) return;
  store_block(push.outputs, push.scales, row, push.stride, block, block);
}
