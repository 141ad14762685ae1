// q5_k: file blocks of 256 weights, 176 bytes: the 16 bytes of scales of q4_k, 32 bytes of high bits (bit c of byte
// b belongs to weight b of the c-th 32), 128 bytes of nibbles; w = q * scale - minimum.
// plane0: nibbles as in q4_k. plane1: high bits as in q5_0. plane2: scales as in q4_k.
#define CHUNK 32u
#define PLANE0 Quads
#define PLANE1 Words
#define PLANE2 Quads
#define BLOCK 256u
#define BLOCK_BYTES 176u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
  uint high;
  vec2 scales;
};

// Scale and minimum of block `i` of 8, 6 bits each, out of the 12 packed bytes.
vec2 scale_and_minimum(uvec4 header, uint i) {
  uint shift = (i & 3u) * 8;
  uint low = header.y >> shift;
  uint middle = header.z >> shift;
  uint high = header.w >> shift;
  uint scale = i < 4 ? low & 63u : (high & 15u) | ((low >> 2) & 48u);
  uint minimum = i < 4 ? middle & 63u : ((high >> 4) & 15u) | ((middle >> 2) & 48u);
  return unpackHalf2x16(header.x) * vec2(scale, minimum);
}

Chunk load_chunk(uint index) {
  return Chunk(
      push.weights.plane0.at[index], push.weights.plane1.at[index],
      scale_and_minimum(push.weights.plane2.at[index / 8], index & 7u));
}

// The fifth bits of weights 4j to 4j + 3, each in place above its nibble.
uint high_bits(uint word, uint j) {
  return ((word >> j) & 0x01010101u) << 4;
}

void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  vec4 scale = vec4(chunk.scales.x);
  vec4 minimum = vec4(-chunk.scales.y);
  [[unroll]] for (uint j = 0; j < 4; j++) {
    uint low = (chunk.quants[j] & 0x0f0f0f0fu) | high_bits(chunk.high, j);
    uint high = ((chunk.quants[j] >> 4) & 0x0f0f0f0fu) | high_bits(chunk.high, j + 4);
    w[j] = fma(bytes_to_floats(low), scale, minimum);
    w[j + 4] = fma(bytes_to_floats(high), scale, minimum);
  }
}
#endif

#ifdef FORMAT_REPACK
// Nibble n (0 low, 1 high) of weights 4k to 4k + 3 of a run of 32 bytes, as bytes.
uint nibbles(uint run, uint k, uint n) {
  return (source_word(run + 4 * k) >> (4 * n)) & 0x0f0f0f0fu;
}

void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane2.at[4 * block + j] = source_word(source + 4 * j);
  for (uint chunk = 0; chunk < 8; chunk++) {
    uint run = source + 48 + 32 * (chunk / 2);
    [[unroll]] for (uint j = 0; j < 4; j++) {
      push.plane0.at[(8 * block + chunk) * 4 + j] =
          nibbles(run, j, chunk & 1u) | (nibbles(run, j + 4, chunk & 1u) << 4);
    }
    uint high = 0;
    for (uint j = 0; j < 8; j++) high |= ((source_word(source + 16 + 4 * j) >> chunk) & 0x01010101u) << j;
    push.plane1.at[8 * block + chunk] = high;
  }
}
#endif
