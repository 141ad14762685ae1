// q4_0: file blocks of 32 weights, 18 bytes: scale (half), 16 bytes of nibbles; w = (q - 8) * scale.
// plane0: 16 bytes a block; byte b holds weight b (low nibble) and weight b + 16 (high). plane1: scales, halves.
#define SCALED
#define MINIMUM
#define NIBBLES
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Words
#define BLOCK 32u
#define BLOCK_BYTES 18u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  float scale;
};

Chunk load_chunk(uint index) {
  return Chunk(QUAD_AT(push.weights.plane0, index), half_of_word(push.weights.plane1.at[index / 2], index));
}

vec2 chunk_scale(Chunk chunk) { return chunk.scale * vec2(1, -8); }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    words[j] = chunk.quants[j] & 0x0f0f0f0fu;
    words[j + 4] = (chunk.quants[j] >> 4) & 0x0f0f0f0fu;
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane0.at[4 * block + j] = source_word(source + 2 + 4 * j);
  atomicOr(push.plane1.at[block / 2], source_half(source) << (16 * (block & 1u)));
}
#endif
