// Products with inputs in blocks of bytes: `accumulate` adds a chunk of each row times a column's inputs, for every
// column. Sums of a chunk are exact integers; scales of weights and inputs multiply them once.
#extension GL_EXT_integer_dot_product : require

// The chunk's weights as signed bytes; of NIBBLES, those of the second half are 16 * weight - 128, which takes one
// operation less: see `accumulate`.
void unpack_signed(Chunk chunk, out int words[CHUNK / 4]) {
#ifdef NIBBLES
  [[unroll]] for (uint j = 0; j < 4; j++) {
    words[j] = int(chunk.quants[j] & 0x0f0f0f0fu);
    words[j + 4] = int((chunk.quants[j] & 0xf0f0f0f0u) ^ 0x80808080u);
  }
#else
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
#endif
}

void accumulate(Chunk chunks[ROWS], uint chunk) {
  uint width = (push.columns + 1023) & ~1023u;
  int w[ROWS][CHUNK / 4];
  if (COLUMNS > 1) {
    [[unroll]] for (uint r = 0; r < ROWS; r++) unpack_signed(chunks[r], w[r]);
  }
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    uint first_quad = column_rows[c] * (width / 16);
    uint first_pair = column_rows[c] * (width / 32);
#if CHUNK == 32
    ivec4 low = ivec4(push.inputs.at[first_quad + block_quad(chunk, 0)]);
    ivec4 high = ivec4(push.inputs.at[first_quad + block_quad(chunk, 1)]);
    // Of both halves: scales, and scaled sums.
    vec4 scales = push.input_scales.at[first_pair + chunk];
#ifdef NIBBLES
    float rest = 8 * scales.w;  // what 128 too little in each weight of the second half makes, over 16
    scales.y *= 1.0 / 16;
#endif
#ifdef MINIMUM
    float total = scales.z + scales.w;
#endif
#else
    ivec4 low = ivec4(push.inputs.at[first_quad + block_quad(chunk / 2, chunk & 1u)]);
    vec4 both = push.input_scales.at[first_pair + chunk / 2];
    float scale = (chunk & 1u) == 0 ? both.x : both.y;
#endif
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
      if (COLUMNS == 1) unpack_signed(chunks[r], w[r]);
      int first = 0;
      [[unroll]] for (uint j = 0; j < 4; j++) first += dotPacked4x8EXT(w[r][j], low[j]);
#if CHUNK == 32
      int second = 0;
      [[unroll]] for (uint j = 0; j < 4; j++) second += dotPacked4x8EXT(w[r][j + 4], high[j]);
#ifdef HALVES
      vec2 weight_scales = half_scales(chunks[r]) * scales.xy;
      sums[r * COLUMNS + c] += fma(weight_scales.x, float(first), weight_scales.y * float(second));
#ifdef HALF_MINIMA
      sums[r * COLUMNS + c] += dot(half_minima(chunks[r]), scales.zw);
#endif
#else
      vec2 weight_scale = chunk_scale(chunks[r]);
#ifdef NIBBLES
      float product = fma(scales.x, float(first), fma(scales.y, float(second), rest));
#else
      float product = fma(scales.x, float(first), scales.y * float(second));
#endif
      sums[r * COLUMNS + c] = fma(weight_scale.x, product, sums[r * COLUMNS + c]);
#ifdef MINIMUM
      sums[r * COLUMNS + c] = fma(weight_scale.y, total, sums[r * COLUMNS + c]);
#endif
#endif
#else
      sums[r * COLUMNS + c] = fma(chunk_scale(chunks[r]).x * scale, float(first), sums[r * COLUMNS + c]);
#endif
    }
  }
}
