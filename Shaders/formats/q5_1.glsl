// q5_1: file blocks of 32 weights, 24 bytes: scale and minimum (halves), 32 high bits, 16 bytes of nibbles;
// w = q * scale + minimum. plane0 and plane1 as in q5_0. plane2: scale, minimum.
#define CHUNK 32u
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
  return Chunk(push.weights.plane0.at[index], push.weights.plane1.at[index], push.weights.plane2.at[index]);
}

void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  vec2 scales = unpackHalf2x16(chunk.scales);
  vec4 scale = vec4(scales.x);
  vec4 minimum = vec4(scales.y);
  [[unroll]] for (uint j = 0; j < 4; j++) {
    uint low = (chunk.quants[j] & 0x0f0f0f0fu) | fifth_bits(chunk.high, j);
    uint high = ((chunk.quants[j] >> 4) & 0x0f0f0f0fu) | fifth_bits(chunk.high, j + 4);
    w[j] = fma(bytes_to_floats(low), scale, minimum);
    w[j + 4] = fma(bytes_to_floats(high), scale, minimum);
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
