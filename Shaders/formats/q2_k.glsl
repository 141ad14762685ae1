// q2_k: file blocks of 256 weights, 84 bytes: 16 bytes of scale (low nibble) and minimum (high), 64 bytes of bit
// pairs, scale and minimum of those (halves); w = q * scale - minimum in each 16 weights.
// plane0: 8 bytes for 32 weights; bit pair i of byte b of word h is weight 16h + 4i + b. plane1: the 16 bytes of
// scales. plane2: the two halves.
#define HALVES
#define HALF_MINIMA
#define CHUNK 32
#define PLANE0 Pairs
#define PLANE1 Words
#define PLANE2 Words
#define BLOCK 256u
#define BLOCK_BYTES 84u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec2 quants;
  uint scales;
  uint scale_of_scales;
};

Chunk load_chunk(uint index) {
  return Chunk(
      push.weights.plane0.at[index], push.weights.plane1.at[index / 2] >> (16 * (index & 1u)),
      push.weights.plane2.at[index / 8]);
}

vec2 half_scales(Chunk chunk) {
  return unpackHalf2x16(chunk.scale_of_scales).x * vec2(chunk.scales & 15u, (chunk.scales >> 8) & 15u);
}

vec2 half_minima(Chunk chunk) {
  return unpackHalf2x16(chunk.scale_of_scales).y * -vec2((chunk.scales >> 4) & 15u, (chunk.scales >> 12) & 15u);
}

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint h = 0; h < 2; h++) {
    [[unroll]] for (uint i = 0; i < 4; i++) words[4 * h + i] = (chunk.quants[h] >> (2 * i)) & 0x03030303u;
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  for (uint chunk = 0; chunk < 8; chunk++) {
    [[unroll]] for (uint h = 0; h < 2; h++) {
      push.plane0.at[(8 * block + chunk) * 2 + h] = bit_pairs(source + 16, chunk, h);
    }
  }
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane1.at[4 * block + j] = source_word(source + 4 * j);
  push.plane2.at[block] = source_word(source + 80);
}
#endif
