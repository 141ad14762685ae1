// q4_k: file blocks of 256 weights, 144 bytes: scale and minimum of scales (halves), 8 scales and 8 minima of 6 bits
// in 12 bytes, 128 bytes of nibbles; w = q * scale - minimum in each 32 weights.
// plane0: 16 bytes for 32 weights, as in q4_0. plane1: the 16 bytes before the nibbles, as they are.
#define SCALED
#define MINIMUM
#define NIBBLES
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Quads
#define BLOCK 256u
#define BLOCK_BYTES 144u

#ifdef FORMAT_KERNEL
#include "common/k_scales.glsl"

struct Chunk {
  uvec4 quants;
  vec2 scales;
};

Chunk load_chunk(uint index) {
  return Chunk(QUAD_AT(push.weights.plane0, index), scale_and_minimum(QUAD_AT(push.weights.plane1, index / 8), index & 7u));
}

vec2 chunk_scale(Chunk chunk) { return chunk.scales * vec2(1, -1); }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    words[j] = chunk.quants[j] & 0x0f0f0f0fu;
    words[j + 4] = (chunk.quants[j] >> 4) & 0x0f0f0f0fu;
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane1.at[4 * block + j] = source_word(source + 4 * j);
  // The file pairs 32 weights (low nibbles) with the next 32 (high nibbles).
  for (uint chunk = 0; chunk < 8; chunk++) {
    [[unroll]] for (uint j = 0; j < 4; j++) {
      push.plane0.at[(8 * block + chunk) * 4 + j] = nibbles(source + 16 + 32 * (chunk / 2), chunk & 1u, j);
    }
  }
}
#endif
