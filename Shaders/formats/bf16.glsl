// bf16: plane0 holds the weights as they are, 8 to a chunk of 16 bytes.
#define CHUNK 8
#define PLANE0 Quads
#define BLOCK 8u
#define BLOCK_BYTES 16u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 pairs;
};

Chunk load_chunk(uint index) {
  return Chunk(QUAD_AT(push.weights.plane0, index));
}

// A bf16 number is the upper half of a float32.
void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  [[unroll]] for (uint j = 0; j < 2; j++) {
    uint a = chunk.pairs[2 * j];
    uint b = chunk.pairs[2 * j + 1];
    w[j] = uintBitsToFloat(uvec4(a << 16, a & 0xffff0000u, b << 16, b & 0xffff0000u));
  }
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) push.plane0.at[4 * block + j] = source_word(source + 4 * j);
}
#endif
