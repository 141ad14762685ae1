// Products with float32 inputs: `accumulate` adds a chunk of each row times a column's inputs, for every column.

// The chunk's part of a product, but for its scale.
void unpack_unscaled(Chunk chunk, out vec4 w[CHUNK / 4]) {
#ifdef SCALED
  unpack_quants(chunk, w);
#else
  unpack_chunk(chunk, w);
#endif
}

// Inputs of a single column. Chained stages keep them, since what one waits for empties the caches of its neighbours.
shared vec4 staged[STAGED == 0 ? 1u : STAGED];

void stage_inputs() {
  if (STAGED == 0) return;
  for (uint i = gl_LocalInvocationIndex; i < STAGED; i += gl_WorkGroupSize.x) {
    staged[i] = push.inputs.at[column_rows[0] * STAGED + i];
  }
  barrier();
}

void accumulate(Chunk chunks[ROWS], uint chunk) {
  uint quad = chunk * (CHUNK / 4);
  uint stride = ((push.columns + 1023) & ~1023u) / 4;
  vec4 w[ROWS][CHUNK / 4];
  if (COLUMNS > 1) {
    [[unroll]] for (uint r = 0; r < ROWS; r++) unpack_unscaled(chunks[r], w[r]);
  }
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    vec4 x[CHUNK / 4];
    [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
      x[j] = STAGED != 0 ? staged[activation_quad(quad + j)]
                         : push.inputs.at[column_rows[c] * stride + activation_quad(quad + j)];
    }
#ifdef MINIMUM
    vec4 four = vec4(0);
    [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) four += x[j];
    float total = (four.x + four.y) + (four.z + four.w);
#endif
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
      if (COLUMNS == 1) unpack_unscaled(chunks[r], w[r]);
      vec4 s = vec4(0);
      [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) s = fma(w[r][j], x[j], s);
      float product = (s.x + s.y) + (s.z + s.w);
#ifdef SCALED
      vec2 scale = chunk_scale(chunks[r]);
#ifdef MINIMUM
      sums[r * COLUMNS + c] = fma(scale.y, total, sums[r * COLUMNS + c]);
#endif
      sums[r * COLUMNS + c] = fma(scale.x, product, sums[r * COLUMNS + c]);
#else
      sums[r * COLUMNS + c] += product;
#endif
    }
  }
}
