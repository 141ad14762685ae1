// mxfp4: file blocks of 32 weights, 17 bytes: exponent e (e8m0), 16 bytes of e2m1 nibbles; w = e2m1[q] * 2^(e - 127).
// plane0: nibbles as in q4_0. plane1: exponents, bytes.
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Words
#define BLOCK 32u
#define BLOCK_BYTES 17u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  float unit;
  float scale;
};

Chunk load_chunk(uint index) {
  uint e = (push.weights.plane1.at[index / 4] >> (8 * (index & 3u))) & 255u;
  // Twice the numbers need half the scale, 2^(e - 128). The two smallest are not normal, and some devices take such
  // for 0: there, the numbers are made smaller and the scale larger.
  bool small = e < 2;
  return Chunk(
      QUAD_AT(push.weights.plane0, index), small ? 0.25 : 1.0, uintBitsToFloat((small ? e + 1 : e - 1) << 23));
}

// Twice the magnitudes of eight e2m1 numbers, each in its nibble: 0, 1, 2, 3, 4, 6, 8, 12.
// What is missing from the code itself is 1 for code 5, 2 for 6 and 5 for 7.
uint doubled_magnitudes(uint word) {
  uint code = word & 0x77777777u;
  uint large = (word >> 2) & 0x11111111u;
  uint low_bits = (large | (large << 1)) & code;
  uint all_bits = low_bits & (low_bits >> 1) & 0x11111111u;
  return code + low_bits + 2 * all_bits;
}

// The low nibbles of the bytes of `magnitudes`, negative where bit 3 of the byte of `signs` is set, times `unit`.
vec4 signed_numbers(uint magnitudes, uint signs, float unit) {
  uint positive = magnitudes & 0x0f0f0f0fu;
  uint negative = positive & (((signs >> 3) & 0x01010101u) * 15u);
  return fma(bytes_to_floats(0x0c0c0c0cu + positive - 2 * negative), vec4(unit), vec4(-12 * unit));
}

void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    uint magnitudes = doubled_magnitudes(chunk.quants[j]);
    w[j] = signed_numbers(magnitudes, chunk.quants[j], chunk.unit) * chunk.scale;
    w[j + 4] = signed_numbers(magnitudes >> 4, chunk.quants[j] >> 4, chunk.unit) * chunk.scale;
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane0.at[4 * block + j] = source_word(source + 1 + 4 * j);
  atomicOr(push.plane1.at[block / 4], source_byte(source) << (8 * (block & 3u)));
}
#endif
