#version 460
// New keys and values into the pages of a q8_0 cache: blocks of 32 signed bytes with a scale in float16. The product
// before leaves them as floats, [token][keys of all heads, then values]; an invocation takes a block.
#define CHAINED
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool CHAIN = false;

layout(push_constant) uniform Push { CacheWritePush push; };
#include "common/chain.glsl"

void quantise() {
  uint row = gl_WorkGroupID.y;
  uint head_blocks = push.head_size / 32;
  uint kind_blocks = push.kv_head_count * head_blocks;
  uint index = gl_WorkGroupID.x * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
  if (row >= push.step.row_count || index >= 2 * kind_blocks) return;
  bool is_key = index < kind_blocks;
  uint kv_head = index % kind_blocks / head_blocks;
  uint block = index % head_blocks;
  StepRow entry = push.step.rows[row];
  uint page = push.block_tables.at[entry.sequence * push.table_stride + entry.position / KV_PAGE_TOKENS];
  uint slot = entry.position % KV_PAGE_TOKENS;

  uint source = (row * 2 * kind_blocks + index) * 8;
  float largest = 0;
  for (uint i = 0; i < 8; i++) {
    vec4 size = abs(push.inputs.at[source + i]);
    largest = max(largest, max(max(size.x, size.y), max(size.z, size.w)));
  }
  // Bytes are multiples of the scale as it is stored.
  uint scale_bits = packHalf2x16(vec2(min(largest * (1.0 / 127), 65504.0), 0));
  float scale = unpackHalf2x16(scale_bits).x;
  float inverse = scale > 0 ? 1 / scale : 0.0;

  // Words of a page's head: bytes, then scales; see KVCache.
  uint first = (page * push.kv_head_count + kv_head) * (push.head_size * KV_PAGE_TOKENS * 17 / 64);
  uint scale_index = is_key ? block * KV_PAGE_TOKENS + slot : slot * head_blocks + block;
  uint scale_word = first + push.head_size * KV_PAGE_TOKENS / 4 + scale_index / 2;
  for (uint i = 0; i < 8; i++) {
    vec4 value = clamp(roundEven(push.inputs.at[source + i] * inverse), vec4(-127), vec4(127));
    uvec4 bits = uvec4(ivec4(value)) & 255u;
    uint word = bits.x | bits.y << 8 | bits.z << 16 | bits.w << 24;
    uint quad = 2 * block + i / 4;
    uint place = first + (is_key ? quad * KV_PAGE_TOKENS + slot : slot * (push.head_size / 16) + quad) * 4 + i % 4;
    if (is_key) push.keys.at[place] = word;
    else push.values.at[place] = word;
  }
  // The other half of the word is another invocation's.
  uint shift = 16 * (scale_index & 1u);
  if (is_key) {
    atomicAnd(push.keys.at[scale_word], ~(0xffffu << shift));
    atomicOr(push.keys.at[scale_word], scale_bits << shift);
  } else {
    atomicAnd(push.values.at[scale_word], ~(0xffffu << shift));
    atomicOr(push.values.at[scale_word], scale_bits << shift);
  }
}

void main() {
  wait_for_stage_before();
  quantise();
  finish_stage();
}
