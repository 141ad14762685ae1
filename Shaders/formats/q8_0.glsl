// q8_0: file blocks of 32 weights, 34 bytes: scale (half), 32 signed bytes; w = q * scale.
// plane0: the bytes, two chunks of 16 to a block. plane1: scales, halves.
#define SCALED
#define SIGNED
#define CHUNK 16
#define PLANE0 Quads
#define PLANE1 Words
#define BLOCK 32u
#define BLOCK_BYTES 34u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  float scale;
};

Chunk load_chunk(uint index) {
  return Chunk(QUAD_AT(push.weights.plane0, index), half_of_word(push.weights.plane1.at[index / 4], index / 2));
}

vec2 chunk_scale(Chunk chunk) { return vec2(chunk.scale, 0); }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) words[j] = chunk.quants[j];
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 8; j++) push.plane0.at[8 * block + j] = source_word(source + 2 + 4 * j);
  atomicOr(push.plane1.at[block / 2], source_half(source) << (16 * (block & 1u)));
}
#endif
