// q6_k: file blocks of 256 weights, 210 bytes: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed
// scales, scale of scales (half); w = (q - 32) * scale in each 16 weights.
// plane0: low nibbles as in q4_0. plane1: 8 bytes for 32 weights, upper bits as in q2_k. plane2: 16 scales a block.
// plane3: scale of scales, halves.
#define HALVES
#define OFFSET 32u
#define CHUNK 32
#define PLANE0 Quads
#define PLANE1 Pairs
#define PLANE2 Words
#define PLANE3 Words
#define BLOCK 256u
#define BLOCK_BYTES 210u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  uvec2 high;
  vec2 scales;
};

Chunk load_chunk(uint index) {
  uint block = index / 8;
  uint packed = push.weights.plane2.at[index / 2] >> (16 * (index & 1u));
  float scale = half_of_word(push.weights.plane3.at[block / 2], block);
  return Chunk(
      QUAD_AT(push.weights.plane0, index), push.weights.plane1.at[index],
      vec2(signed_byte(packed), signed_byte(packed >> 8)) * scale);
}

vec2 half_scales(Chunk chunk) { return chunk.scales; }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    words[j] = (chunk.quants[j] & 0x0f0f0f0fu) | (((chunk.high.x >> (2 * j)) & 0x03030303u) << 4);
    words[j + 4] = ((chunk.quants[j] >> 4) & 0x0f0f0f0fu) | (((chunk.high.y >> (2 * j)) & 0x03030303u) << 4);
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  for (uint chunk = 0; chunk < 8; chunk++) {
    // For each 128 weights, the low nibbles of 64 bytes are the first 64 and the high nibbles the last.
    uint run = source + 64 * (chunk / 4) + 32 * (chunk & 1u);
    [[unroll]] for (uint j = 0; j < 4; j++) {
      push.plane0.at[(8 * block + chunk) * 4 + j] = nibbles(run, (chunk / 2) & 1u, j);
    }
    [[unroll]] for (uint h = 0; h < 2; h++) {
      push.plane1.at[(8 * block + chunk) * 2 + h] = bit_pairs(source + 128, chunk, h);
    }
  }
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane2.at[4 * block + j] = source_word(source + 192 + 4 * j);
  atomicOr(push.plane3.at[block / 2], source_half(source + 208) << (16 * (block & 1u)));
}
#endif
