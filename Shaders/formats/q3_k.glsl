// q3_k: file blocks of 256 weights, 110 bytes: 32 bytes of high bits (bit c of byte b belongs to weight b of the
// c-th 32), 64 bytes of bit pairs as in q2_k, 16 scales of 6 bits in 12 bytes, scale of scales (half);
// w = (q - 4) * (scale - 32) * d in each 16 weights.
// plane0: bit pairs as in q2_k. plane1: high bits as in q5_0. plane2: 16 signed bytes of scales. plane3: d, halves.
#define HALVES
#define OFFSET 4u
#define CHUNK 32
#define PLANE0 Pairs
#define PLANE1 Words
#define PLANE2 Words
#define PLANE3 Words
#define BLOCK 256u
#define BLOCK_BYTES 110u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec2 quants;
  uint high;
  vec2 scales;
};

Chunk load_chunk(uint index) {
  uint block = index / 8;
  uint packed = push.weights.plane2.at[index / 2] >> (16 * (index & 1u));
  float scale = half_of_word(push.weights.plane3.at[block / 2], block);
  return Chunk(
      push.weights.plane0.at[index], push.weights.plane1.at[index],
      vec2(signed_byte(packed), signed_byte(packed >> 8)) * scale);
}

vec2 half_scales(Chunk chunk) { return chunk.scales; }

void unpack_words(Chunk chunk, out uint words[CHUNK / 4]) {
  [[unroll]] for (uint h = 0; h < 2; h++) {
    [[unroll]] for (uint i = 0; i < 4; i++) {
      words[4 * h + i] =
          ((chunk.quants[h] >> (2 * i)) & 0x03030303u) | (((chunk.high >> (4 * h + i)) & 0x01010101u) << 2);
    }
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  for (uint chunk = 0; chunk < 8; chunk++) {
    [[unroll]] for (uint h = 0; h < 2; h++) {
      push.plane0.at[(8 * block + chunk) * 2 + h] = bit_pairs(source + 32, chunk, h);
    }
    push.plane1.at[8 * block + chunk] = bits(source, chunk);
  }
  // Four low bits of scales i and i + 8 share byte i; byte 8 + i % 4 holds the upper two of scales i, i + 4, ...
  for (uint word = 0; word < 4; word++) {
    uint low = source_word(source + 96 + 4 * (word & 1u)) >> (4 * (word >> 1));
    uint high = source_word(source + 104) >> (2 * word);
    uint six = (low & 0x0f0f0f0fu) | ((high & 0x03030303u) << 4);
    // Minus 32 in each byte; the top bits, set meanwhile, keep one byte from borrowing from the next.
    push.plane2.at[4 * block + word] = ((six | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
  }
  atomicOr(push.plane3.at[block / 2], source_half(source + 108) << (16 * (block & 1u)));
}
#endif
