// q5_k: file blocks of 256 weights, 176 bytes: the 16 bytes of scales of q4_k, 32 bytes of high bits (bit c of byte
// b belongs to weight b of the c-th 32), 128 bytes of nibbles; w = q * scale - minimum.
// plane0: nibbles as in q4_k. plane1: high bits as in q5_0. plane2: scales as in q4_k.
#define SCALED
#define MINIMUM
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Words
#define PLANE2 Quads
#define BLOCK 256u
#define BLOCK_BYTES 176u

#ifdef FORMAT_KERNEL
#include "common/k_scales.glsl"

struct Chunk {
  uvec4 quants;
  uint high;
  vec2 scales;
};

Chunk load_chunk(uint index) {
  return Chunk(
      QUAD_AT(push.weights.plane0, index), push.weights.plane1.at[index],
      scale_and_minimum(QUAD_AT(push.weights.plane2, index / 8), index & 7u));
}

vec2 chunk_scale(Chunk chunk) { return chunk.scales * vec2(1, -1); }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    words[j] = (chunk.quants[j] & 0x0f0f0f0fu) | fifth_bits(chunk.high, j);
    words[j + 4] = ((chunk.quants[j] >> 4) & 0x0f0f0f0fu) | fifth_bits(chunk.high, j + 4);
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane2.at[4 * block + j] = source_word(source + 4 * j);
  for (uint chunk = 0; chunk < 8; chunk++) {
    [[unroll]] for (uint j = 0; j < 4; j++) {
      push.plane0.at[(8 * block + chunk) * 4 + j] = nibbles(source + 48 + 32 * (chunk / 2), chunk & 1u, j);
    }
    push.plane1.at[8 * block + chunk] = bits(source + 16, chunk);
  }
}
#endif
