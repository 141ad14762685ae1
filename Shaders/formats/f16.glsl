// f16: plane0 holds the weights as they are, 8 to a chunk of 16 bytes.
#define CHUNK 8
#define PLANE0 Quads
#define BLOCK 8u
#define BLOCK_BYTES 16u

#ifdef FORMAT_KERNEL
struct Chunk {
  uvec4 halves;
};

Chunk load_chunk(uint index) {
  return Chunk(QUAD_AT(push.weights.plane0, index));
}

void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  w[0] = vec4(unpackHalf2x16(chunk.halves.x), unpackHalf2x16(chunk.halves.y));
  w[1] = vec4(unpackHalf2x16(chunk.halves.z), unpackHalf2x16(chunk.halves.w));
}
#endif

#ifdef FORMAT_REPACK
void repack_block(uint source, uint block) {
  [[unroll]] for (uint j = 0; j < 4; j++) {
    push.plane0.at[4 * block + j] = source_word(source + 4 * j);
  }
}
#endif
