// q4_1: file blocks of 32 weights, 20 bytes: scale and minimum (halves), 16 bytes of nibbles; w = q * scale + minimum.
// plane0: 16 bytes a block; byte b holds weight b (low nibble) and weight b + 16 (high). plane1: scale, minimum.
#define SCALED
#define MINIMUM
#define NIBBLES
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Words
#define BLOCK 32u
#define BLOCK_BYTES 20u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  uint scales;
};

Chunk load_chunk(uint index) {
  return Chunk(QUAD_AT(push.weights.plane0, index), push.weights.plane1.at[index]);
}

vec2 chunk_scale(Chunk chunk) { return unpackHalf2x16(chunk.scales); }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    words[j] = chunk.quants[j] & 0x0f0f0f0fu;
    words[j + 4] = (chunk.quants[j] >> 4) & 0x0f0f0f0fu;
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    push.plane0.at[4 * block + j] = source_word(source + 4 + 4 * j);
  }
  push.plane1.at[block] = source_word(source);
}
#endif
