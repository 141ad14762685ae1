// Products with inputs in blocks of bytes: `accumulate` adds a chunk of each row times a column's inputs, for every
// column. Sums of a chunk are exact integers; scales of weights and inputs multiply them once.
#include "linear/signed_chunk.glsl"

void stage_inputs() {}

void accumulate(Chunk chunks[ROWS], uint chunk) {
  uint width = (push.columns + 1023) & ~1023u;
  int w[ROWS][CHUNK / 4];
  if (COLUMNS > 1) {
    [[unroll]] for (uint r = 0; r < ROWS; r++) unpack_signed(chunks[r], w[r]);
  }
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    uint first_quad = column_rows[c] * (width / 16);
    uint first_block = column_rows[c] * (width / 32);
#if CHUNK == 32
    uint block = chunk;
    ivec4 low = ivec4(push.inputs.at[first_quad + block_quad(block, 0)]);
    ivec4 high = ivec4(push.inputs.at[first_quad + block_quad(block, 1)]);
#else
    uint block = chunk / 2;
    ivec4 low = ivec4(push.inputs.at[first_quad + block_quad(block, chunk & 1u)]);
#endif
    vec2 input_scale = uintBitsToFloat(push.input_scales.at[first_block + block]);
#ifdef HALF_MINIMA
    ivec2 totals = ivec2(0);
    [[unroll]] for (uint j = 0; j < 4; j++) {
      totals += ivec2(dotPacked4x8EXT(ONES, low[j]), dotPacked4x8EXT(ONES, high[j]));
    }
    vec2 half_sums = input_scale.x * vec2(totals);
#endif
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
      if (COLUMNS == 1) unpack_signed(chunks[r], w[r]);
      int first = 0;
      [[unroll]] for (uint j = 0; j < 4; j++) first += dotPacked4x8EXT(w[r][j], low[j]);
#ifdef HALVES
      int second = 0;
      [[unroll]] for (uint j = 0; j < 4; j++) second += dotPacked4x8EXT(w[r][j + 4], high[j]);
      vec2 scales = half_scales(chunks[r]);
      float product = fma(scales.x, float(first), scales.y * float(second));
      sums[r * COLUMNS + c] = fma(input_scale.x, product, sums[r * COLUMNS + c]);
#ifdef HALF_MINIMA
      sums[r * COLUMNS + c] += dot(half_minima(chunks[r]), half_sums);
#endif
#else
#if CHUNK == 32
      [[unroll]] for (uint j = 0; j < 4; j++) first += dotPacked4x8EXT(w[r][j + 4], high[j]);
#endif
      vec2 scale = chunk_scale(chunks[r]);
      sums[r * COLUMNS + c] = fma(scale.x * input_scale.x, float(first), sums[r * COLUMNS + c]);
#ifdef MINIMUM
      sums[r * COLUMNS + c] = fma(scale.y, input_scale.y, sums[r * COLUMNS + c]);
#endif
#endif
    }
  }
}
