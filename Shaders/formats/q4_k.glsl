// q4_k: file blocks of 256 weights, 144 bytes: scale and minimum of scales (halves), 8 scales and 8 minima of 6 bits
// in 12 bytes, 128 bytes of nibbles; w = q * scale - minimum in each 32 weights.
// plane0: 16 bytes for 32 weights, as in q4_0. plane1: the 16 bytes before the nibbles, as they are.
#define CHUNK 32u
#define PLANE0 Quads
#define PLANE1 Quads
#define BLOCK 256u
#define BLOCK_BYTES 144u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 quants;
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
  return Chunk(push.weights.plane0.at[index], scale_and_minimum(push.weights.plane1.at[index / 8], index & 7u));
}

void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  vec4 scale = vec4(chunk.scales.x);
  vec4 minimum = vec4(-chunk.scales.y);
  [[unroll]] for (uint j = 0; j < 4; j++) {
    w[j] = fma(bytes_to_floats(chunk.quants[j] & 0x0f0f0f0fu), scale, minimum);
    w[j + 4] = fma(bytes_to_floats((chunk.quants[j] >> 4) & 0x0f0f0f0fu), scale, minimum);
  }
}
#endif

#ifdef FORMAT_REPACK
// Nibble n (0 low, 1 high) of weights 4k to 4k + 3 of a run of 32 bytes, as bytes.
uint nibbles(uint run, uint k, uint n) {
  return (source_word(run + 4 * k) >> (4 * n)) & 0x0f0f0f0fu;
}

void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane1.at[4 * block + j] = source_word(source + 4 * j);
  // The file pairs 32 weights (low nibbles) with the next 32 (high nibbles).
  for (uint chunk = 0; chunk < 8; chunk++) {
    uint run = source + 16 + 32 * (chunk / 2);
    [[unroll]] for (uint j = 0; j < 4; j++) {
      push.plane0.at[(8 * block + chunk) * 4 + j] =
          nibbles(run, j, chunk & 1u) | (nibbles(run, j + 4, chunk & 1u) << 4);
    }
  }
}
#endif
