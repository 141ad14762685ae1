#version 460
// x = table[token] * scale into the residual stream, and what the first product wants of it: one invocation for 32
// weights of a row.
//! formats: all
#include FORMAT_FILE
#include "common/types.glsl"
#include "common/bytes.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint NEXT = NEXT_NONE;

layout(push_constant) uniform Push { EmbedPush push; };

#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"
#include "common/blocks.glsl"

// Where chunk `chunk` of a row lies (see WeightFormat.rowInterleave).
uint chunk_index(uint row, uint chunk) {
  const uint block_chunks = BLOCK / CHUNK;
  uint in_group = row % push.row_interleave;
  uint block = (row - in_group) * (push.columns / BLOCK) + chunk / block_chunks * push.row_interleave + in_group;
  return block * block_chunks + chunk % block_chunks;
}

// What each invocation's block of bytes is made of.
shared float inputs[NEXT == NEXT_BYTES ? 32 * gl_WorkGroupSize.x : 1u];

float block_value(uint place, uint i) { return inputs[place * 32 + i]; }

// Block `block` of 32 weights of a row.
void embed(uint row, uint block) {
  uint blocks = push.columns / 32;
  StepRow entry = push.step.rows[row];
  uint token = entry.token == TOKEN_FROM_DEVICE ? push.last_tokens.at[entry.sequence] : entry.token;
  token -= push.first_token;
  float scale = token < push.vocabulary ? push.scale : 0.0;
  token = min(token, push.vocabulary - 1);
  float squares = 0;
  [[unroll]] for (uint part = 0; part < 32 / CHUNK; part++) {
    vec4 w[CHUNK / 4];
    unpack_chunk(load_chunk(chunk_index(token, block * (32 / CHUNK) + part)), w);
    [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
      uint quad = 4 * activation_quad(block * 8 + part * (CHUNK / 4) + j);
      [[unroll]] for (uint i = 0; i < 4; i++) {
        float x = w[j][i] * scale;
        push.outputs.at[row * push.output_stride + quad + i] = x;
        squares = fma(x, x, squares);
        if (NEXT != NEXT_NONE) x *= push.next.norm.at[quad + i];
        if (NEXT == NEXT_FLOATS) push.next.values.at[row * push.next.width + quad + i] = floatBitsToUint(x);
        if (NEXT == NEXT_BYTES) inputs[gl_LocalInvocationIndex * 32 + part * CHUNK + 4 * j + i] = x;
      }
    }
  }
  if (NEXT != NEXT_NONE) push.next.squares.at[row * blocks + block] = squares;
}

void main() {
  uint row = gl_WorkGroupID.y;
  if (row >= push.step.row_count) return;
  uint blocks = push.columns / 32;
  uint block = gl_GlobalInvocationID.x;
  if (block < blocks) embed(row, block);
  if (NEXT != NEXT_BYTES) return;
  barrier();
  uint first_block = gl_WorkGroupID.x * gl_WorkGroupSize.x;
  for (uint i = gl_SubgroupID; i < min(gl_WorkGroupSize.x, blocks - first_block); i += gl_NumSubgroups) {
    store_block(push.next.values, push.next.scales, row, push.next.width, first_block + i, i);
  }
}
