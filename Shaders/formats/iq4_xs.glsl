// iq4_xs: file blocks of 256 weights, 136 bytes: scale (half), upper bit pairs of 8 scales (16 bits), their low
// nibbles (4 bytes), 128 bytes of nibbles; w = level[q] * d * (scale - 32) in each 32 weights.
// plane0: nibbles as in q4_0. plane1: the 8 bytes before the nibbles, as they are.
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Pairs
#define BLOCK 256u
#define BLOCK_BYTES 136u

#ifdef FORMAT_KERNEL
#include "common/iq4_levels.glsl"

struct Chunk {
  uvec4 quants;
  float scale;
};

Chunk load_chunk(uint index) {
  uvec2 header = push.weights.plane1.at[index / 8];
  uint i = index & 7u;
  uint scale = ((header.y >> (4 * i)) & 15u) | (((header.x >> (16 + 2 * i)) & 3u) << 4);
  return Chunk(QUAD_AT(push.weights.plane0, index), unpackHalf2x16(header.x).x * (float(scale) - 32));
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
  // Each 32 weights are 16 bytes, low nibbles before high ones: as in q4_0.
  for (uint j = 0; j < 32; j++) push.plane0.at[32 * block + j] = source_word(source + 8 + 4 * j);
  push.plane1.at[2 * block] = source_word(source);
  push.plane1.at[2 * block + 1] = source_word(source + 4);
}
#endif
