// Scales of q4_k and q5_k.

// Scale and minimum of block `i` of 8, 6 bits each, out of the 12 packed bytes.
vec2 scale_and_minimum(uvec4 header, uint i) {
  uint shift = (i & 3u) * 8;
  uint low = header.y >> shift;
  uint middle = header.z >> shift;
  uint high = header.w >> shift;
  uint scale = i < 4 ? low & 63u : (high & 15u) | ((low >> 2) & 48u);
  uint minimum = i < 4 ? middle & 63u : ((high >> 4) & 15u) | ((middle >> 2) & 48u);
  return unpackHalf2x16(header.x) * vec2(scale, minimum);
}
