// q6_k: file blocks of 256 weights, 210 bytes: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed
// scales, scale of scales (half); w = (q - 32) * scale in each 16 weights.
// plane0: low nibbles as in q4_0. plane1: 8 bytes for 32 weights, upper bits as in q2_k. plane2: 16 scales a block.
// plane3: scale of scales, halves.
#define CHUNK 32u
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
      push.weights.plane0.at[index], push.weights.plane1.at[index], vec2(signed_byte(packed), signed_byte(packed >> 8)) * scale);
}

void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    uint low = (chunk.quants[j] & 0x0f0f0f0fu) | (((chunk.high.x >> (2 * j)) & 0x03030303u) << 4);
    uint high = ((chunk.quants[j] >> 4) & 0x0f0f0f0fu) | (((chunk.high.y >> (2 * j)) & 0x03030303u) << 4);
    w[j] = fma(bytes_to_floats(low), vec4(chunk.scales.x), vec4(-32 * chunk.scales.x));
    w[j + 4] = fma(bytes_to_floats(high), vec4(chunk.scales.y), vec4(-32 * chunk.scales.y));
  }
}
#endif

#ifdef FORMAT_REPACK
// Low nibbles of weights 4k to 4k + 3 of the chunk: the file holds, for each 128 weights, 64 bytes whose low nibbles
// are the first 64 and whose high nibbles are the last.
uint low_nibbles(uint source, uint chunk, uint k) {
  uint word = source_word(source + 64 * (chunk / 4) + 32 * (chunk & 1u) + 4 * k);
  return (word >> (4 * ((chunk >> 1) & 1u))) & 0x0f0f0f0fu;
}

void repack_block(uint source, uint block) {
  for (uint chunk = 0; chunk < 8; chunk++) {
    [[unroll]] for (uint j = 0; j < 4; j++) {
      push.plane0.at[(8 * block + chunk) * 4 + j] =
          low_nibbles(source, chunk, j) | (low_nibbles(source, chunk, j + 4) << 4);
    }
    // Upper bits: for each 128 weights 32 bytes, bit pair c of byte b belongs to weight b of the c-th 32.
    [[unroll]] for (uint h = 0; h < 2; h++) {
      uint word = 0;
      [[unroll]] for (uint j = 0; j < 4; j++) {
        uint bits = source_word(source + 128 + 32 * (chunk / 4) + 16 * h + 4 * j) >> (2 * (chunk & 3u));
        word |= (bits & 0x03030303u) << (2 * j);
      }
      push.plane1.at[(8 * block + chunk) * 2 + h] = word;
    }
  }
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane2.at[4 * block + j] = source_word(source + 192 + 4 * j);
  atomicOr(push.plane3.at[block / 2], source_half(source + 208) << (16 * (block & 1u)));
}
#endif
