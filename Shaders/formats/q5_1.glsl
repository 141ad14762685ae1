// q5_1: file blocks of 32 weights, 24 bytes: scale and minimum (halves), 32 high bits, 16 bytes of nibbles;
// w = q * scale + minimum. plane0 and plane1 as in q5_0. plane2: scale, minimum.
#define SCALED
#define MINIMUM
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Words
#define PLANE2 Words
#define BLOCK 32u
#define BLOCK_BYTES 24u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  uint high;
  uint scales;
};

Chunk load_chunk(uint index) {
  return Chunk(QUAD_AT(push.weights.plane0, index), push.weights.plane1.at[index], push.weights.plane2.at[index]);
}

vec2 chunk_scale(Chunk chunk) { return unpackHalf2x16(chunk.scales); }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    words[j] = (chunk.quants[j] & 0x0f0f0f0fu) | fifth_bits(chunk.high, j);
    words[j + 4] = ((chunk.quants[j] >> 4) & 0x0f0f0f0fu) | fifth_bits(chunk.high, j + 4);
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane0.at[4 * block + j] = source_word(source + 8 + 4 * j);
  push.plane1.at[block] = spread_bits(source_word(source + 4));
  push.plane2.at[block] = source_word(source);
}
#endif
