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

// The low byte of a word, signed.
float signed_byte(uint word) {
  return float(int(word << 24) >> 24);
}

// Bit j of each byte of `word`, moved above a nibble: the fifth bits of four weights.
uint fifth_bits(uint word, uint j) {
  return ((word >> j) & 0x01010101u) << 4;
}

// Half `index & 1` of a word.
float half_of_word(uint word, uint index) {
  return unpackHalf2x16(word >> (16 * (index & 1u))).x;
}
