// Levels of iq4_nl and iq4_xs.
// The format's 16 levels plus 128, a byte each.
const uvec4 LEVELS = uvec4(0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);

// The levels of the four nibbles that are the bytes of `word`.
vec4 levels(uint word) {
  vec4 result;
  [[unroll]] for (uint i = 0; i < 4; i++) {
    uint q = (word >> (8 * i)) & 15u;
    uint low = (q & 4u) != 0 ? LEVELS.y : LEVELS.x;
    uint high = (q & 4u) != 0 ? LEVELS.w : LEVELS.z;
    uint four = (q & 8u) != 0 ? high : low;
    result[i] = float((four >> (8 * (q & 3u))) & 255u);
  }
  return result - 128;
}
