#version 460
// Random blocks in the layout of a file, one invocation a word: every byte depends only on the seed, the block's
// number and its place there. Where a block holds scales, the bytes are made to suit (RandomScales in ModelFiles).
#include "common/types.glsl"

#define KIND_F32 0u
#define KIND_F16 1u
#define KIND_BF16 2u
#define KIND_BLOCKS 3u

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint KIND = KIND_BLOCKS;
layout(constant_id = 2) const uint BLOCK_BYTES = 18;
layout(constant_id = 3) const uint SCALE = 0;        // byte offsets in a block; NONE where there is none
layout(constant_id = 4) const uint MINIMUM = 0xffffffff;
layout(constant_id = 5) const bool SIGNED = true;
layout(constant_id = 6) const uint COPIED = 0xffffffff;
layout(constant_id = 7) const uint DOUBLED = 0xffffffff;
layout(constant_id = 8) const uint DOUBLED_END = 0;
layout(constant_id = 9) const bool EXPONENT = false;
const uint NONE = 0xffffffff;

layout(push_constant) uniform Push { RandomPush push; };

uint hash(uint x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

// Random bits of word `index` of a block.
uint random(uint block, uint index) { return hash(push.seed ^ hash(block ^ (index * 0x9e3779b9u))); }

// A number of the distribution of floating-point types.
float number(uint index) {
  return push.center + push.width * (float(random(index, 0) >> 8) * 1.1920929e-7 - 1);
}

uint brain_bits(float value) { return (floatBitsToUint(value) + 0x8000u) >> 16; }

uint random_byte(uint block, uint offset) { return (random(block, offset >> 2) >> (8 * (offset & 3u))) & 255u; }

// Byte `offset` of a block.
uint block_byte(uint block, uint offset) {
  bool in_scale = SCALE != NONE && offset - SCALE < 2;
  bool in_minimum = MINIMUM != NONE && offset - MINIMUM < 2;
  if (in_scale || in_minimum) {
    uint bits = random(block, 0x10000u);
    float scale = push.width * (0.75 + float(bits >> 8) * 2.9802322e-8);
    if (SIGNED && (bits & 1u) != 0) scale = -scale;
    uint half_bits = packHalf2x16(vec2(in_minimum ? push.minimum_ratio * scale : scale, 0));
    return (half_bits >> (8 * (offset - (in_minimum ? MINIMUM : SCALE)))) & 255u;
  }
  if (EXPONENT && offset == 0) return push.exponent + random(block, 0x10000u) % 3;
  if (COPIED != NONE && offset - COPIED < 4) return random_byte(block, offset - 4);
  uint bits = random_byte(block, offset);
  return DOUBLED != NONE && offset >= DOUBLED && offset < DOUBLED_END ? (bits & 15u) * 17 : bits;
}

void main() {
  uint count = push.word_count;
  for (uint i = gl_GlobalInvocationID.x; i < count; i += gl_NumWorkGroups.x * gl_WorkGroupSize.x) {
    uint word = 0;
    if (KIND == KIND_F32) {
      word = floatBitsToUint(number(push.first_block + i));
    } else if (KIND == KIND_F16) {
      uint first = push.first_block + 2 * i;
      word = packHalf2x16(vec2(number(first), number(first + 1)));
    } else if (KIND == KIND_BF16) {
      uint first = push.first_block + 2 * i;
      word = brain_bits(number(first)) | (brain_bits(number(first + 1)) << 16);
    } else {
      [[unroll]] for (uint j = 0; j < 4; j++) {
        uint address = 4 * i + j;
        word |= block_byte(push.first_block + address / BLOCK_BYTES, address % BLOCK_BYTES) << (8 * j);
      }
    }
    push.destination.at[i] = word;
  }
}
