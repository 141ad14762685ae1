// Scales of q4_k and q5_k, as repacked: the scale and minimum of scales as halves, then for 8 blocks of 32 weights the
// low four bits of scale and minimum in a byte each (two words), and the upper two bits of both in a nibble each.

// Scale and minimum of block `i`.
vec2 scale_and_minimum(uvec4 header, uint i) {
  uint low = (i < 4 ? header.y : header.z) >> ((i & 3u) * 8);
  uint high = header.w >> (4 * i);
  uint scale = (low & 15u) | ((high & 3u) << 4);
  uint minimum = ((low >> 4) & 15u) | ((high & 12u) << 2);
  return unpackHalf2x16(header.x) * vec2(scale, minimum);
}
