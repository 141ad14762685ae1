// q5_0: file blocks of 32 weights, 22 bytes: scale (half), 32 high bits, 16 bytes of nibbles; w = (q - 16) * scale.
// plane0: nibbles as in q4_0. plane1: a word a block, bit j of byte b is the high bit of weight 4j + b. plane2: scales.
#define SCALED
#define MINIMUM
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Words
#define PLANE2 Words
#define BLOCK 32u
#define BLOCK_BYTES 22u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  uint high;
  float scale;
};

Chunk load_chunk(uint index) {
  return Chunk(
      QUAD_AT(push.weights.plane0, index), push.weights.plane1.at[index],
      half_of_word(push.weights.plane2.at[index / 2], index));
}

vec2 chunk_scale(Chunk chunk) { return chunk.scale * vec2(1, -16); }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    words[j] = (chunk.quants[j] & 0x0f0f0f0fu) | fifth_bits(chunk.high, j);
    words[j + 4] = ((chunk.quants[j] >> 4) & 0x0f0f0f0fu) | fifth_bits(chunk.high, j + 4);
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane0.at[4 * block + j] = source_word(source + 6 + 4 * j);
  push.plane1.at[block] = spread_bits(source_word(source + 2));
  atomicOr(push.plane2.at[block / 2], source_half(source) << (16 * (block & 1u)));
}
#endif
