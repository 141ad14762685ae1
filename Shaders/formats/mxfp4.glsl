// mxfp4: file blocks of 32 weights, 17 bytes: exponent e (e8m0), 16 bytes of e2m1 nibbles; w = e2m1[q] * 2^(e - 127).
// plane0: nibbles as in q4_0. plane1: exponents, bytes.
#define CHUNK 32u
#define PLANE0 Quads
#define PLANE1 Words
#define BLOCK 32u
#define BLOCK_BYTES 17u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  float scale;
};

Chunk load_chunk(uint index) {
  uint e = (push.weights.plane1.at[index / 4] >> (8 * (index & 3u))) & 255u;
  // Half of 2^(e - 127), since levels are doubled; the two smallest are not normal numbers.
  return Chunk(push.weights.plane0.at[index], uintBitsToFloat(e < 2 ? 0x00200000u << e : (e - 1) << 23));
}

// Twice the e2m1 numbers of the low nibbles of the bytes of `word`: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
vec4 doubled(uint word) {
  vec4 result;
  [[unroll]] for (uint i = 0; i < 4; i++) {
    uint q = (word >> (8 * i)) & 15u;
    uint level = (0xc8643210u >> (4 * (q & 7u))) & 15u;
    result[i] = (q & 8u) != 0 ? -float(level) : float(level);
  }
  return result;
}

void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    w[j] = doubled(chunk.quants[j]) * chunk.scale;
    w[j + 4] = doubled(chunk.quants[j] >> 4) * chunk.scale;
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane0.at[4 * block + j] = source_word(source + 1 + 4 * j);
  atomicOr(push.plane1.at[block / 4], source_byte(source) << (8 * (block & 3u)));
}
#endif
