// Octets of elements of cached keys and values, as they lie in pages: see KVCache. Wants CACHE and HEAD_SIZE,
// specialization constants, `push.keys` and `push.values`.
//
// In f16 an octet is eight halves. In q8_0 it is eight signed bytes, two words, and the scale of their block as a float
// in the third; sixteen elements are a quad, and the scales of a page's head follow its bytes.
#include "common/bytes.glsl"

const uint KV_OCTETS = HEAD_SIZE / 8;
// Quads of one head of a page, and where the scales begin.
const uint KV_HEAD_QUADS =
    CACHE == CACHE_Q8_0 ? HEAD_SIZE * KV_PAGE_TOKENS * 17 / 256 : KV_OCTETS * KV_PAGE_TOKENS;
const uint KV_SCALES_AT = HEAD_SIZE * KV_PAGE_TOKENS / 16;

uvec4 q8_octet(uvec4 quad, uint octet, uint scale_word, uint scale) {
  return uvec4((octet & 1u) == 0 ? quad.xy : quad.zw, floatBitsToUint(half_of_word(scale_word, scale)), 0);
}

// `head` counts the heads of all pages: page * kv heads + kv head.
uvec4 key_octet(uint head, uint octet, uint slot) {
  uint first = head * KV_HEAD_QUADS;
  if (CACHE == CACHE_F16) return push.keys.at[first + octet * KV_PAGE_TOKENS + slot];
  uint scale = octet / 4 * KV_PAGE_TOKENS + slot;
  return q8_octet(
      push.keys.at[first + octet / 2 * KV_PAGE_TOKENS + slot], octet,
      push.keys.at[first + KV_SCALES_AT + scale / 8][scale / 2 % 4], scale);
}

uvec4 value_octet(uint head, uint slot, uint octet) {
  uint first = head * KV_HEAD_QUADS;
  if (CACHE == CACHE_F16) return push.values.at[first + slot * KV_OCTETS + octet];
  uint scale = slot * (HEAD_SIZE / 32) + octet / 4;
  return q8_octet(
      push.values.at[first + slot * (HEAD_SIZE / 16) + octet / 2], octet,
      push.values.at[first + KV_SCALES_AT + scale / 8][scale / 2 % 4], scale);
}

vec4 low_half(uvec4 octet) {
  if (CACHE == CACHE_F16) return vec4(unpackHalf2x16(octet.x), unpackHalf2x16(octet.y));
  return signed_bytes_to_floats(octet.x) * uintBitsToFloat(octet.z);
}

vec4 high_half(uvec4 octet) {
  if (CACHE == CACHE_F16) return vec4(unpackHalf2x16(octet.z), unpackHalf2x16(octet.w));
  return signed_bytes_to_floats(octet.y) * uintBitsToFloat(octet.z);
}

// The octet as eight halves.
uvec4 halves(uvec4 octet) {
  if (CACHE == CACHE_F16) return octet;
  vec4 low = clamp(low_half(octet), vec4(-65504), vec4(65504));
  vec4 high = clamp(high_half(octet), vec4(-65504), vec4(65504));
  return uvec4(packHalf2x16(low.xy), packHalf2x16(low.zw), packHalf2x16(high.xy), packHalf2x16(high.zw));
}
