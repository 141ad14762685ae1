// Small integers packed in words, to floats. No 8-bit feature is needed.

// The four bytes of a word as unsigned integers.
vec4 bytes_to_floats(uint word) {
  return vec4(word & 255u, (word >> 8) & 255u, (word >> 16) & 255u, word >> 24);
}

// The four bytes of a word as signed integers.
vec4 signed_bytes_to_floats(uint word) {
  int v = int(word);
  return vec4((v << 24) >> 24, (v << 16) >> 24, (v << 8) >> 24, v >> 24);
}
