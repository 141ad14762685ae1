// Weights of a chunk as signed bytes, for packed dot products.
#extension GL_EXT_integer_dot_product : require

const int ONES = 0x01010101;

// The chunk's weights as signed bytes.
void unpack_signed(Chunk chunk, out int words[CHUNK / 4]) {
  uint raw[CHUNK / 4];
  unpack_words(chunk, raw);
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
#ifdef OFFSET
    // Minus OFFSET in each byte; the top bits, set meanwhile, keep one byte from borrowing from the next.
    words[j] = int(((raw[j] | 0x80808080u) - OFFSET * 0x01010101u) ^ 0x80808080u);
#else
    words[j] = int(raw[j]);
#endif
  }
}
