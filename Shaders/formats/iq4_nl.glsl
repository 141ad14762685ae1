// iq4_nl: file blocks of 32 weights, 18 bytes: scale (half), 16 bytes of nibbles; w = level[q] * scale.
// Planes as in q4_0.
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Words
#define BLOCK 32u
#define BLOCK_BYTES 18u

#ifdef FORMAT_KERNEL
#include "common/iq4_levels.glsl"

struct Chunk {
  uvec4 quants;
  float scale;
};

Chunk load_chunk(uint index) {
  return Chunk(QUAD_AT(push.weights.plane0, index), half_of_word(push.weights.plane1.at[index / 2], index));
}

void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    w[j] = levels(chunk.quants[j] & 0x0f0f0f0fu) * chunk.scale;
    w[j + 4] = levels((chunk.quants[j] >> 4) & 0x0f0f0f0fu) * chunk.scale;
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane0.at[4 * block + j] = source_word(source + 2 + 4 * j);
  atomicOr(push.plane1.at[block / 2], source_half(source) << (16 * (block & 1u)));
}
#endif
