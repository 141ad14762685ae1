#version 460
// Tiles of products with inputs in blocks of bytes: formats of small integers, on devices with packed dot products.
// Sums of a block, or of half of one where a format has scales for halves, are exact integers.
//! formats: q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0
//! needs: GL_EXT_integer_dot_product
#define INPUTS StageQuads
#include FORMAT_FILE
#include "linear/constants.glsl"
#define FORMAT_KERNEL
#include FORMAT_FILE

const uint STEP_BLOCKS = 2;
const uint STEP = 32 * STEP_BLOCKS;
const uint COLUMN_QUADS = 2 * STEP_BLOCKS;

#include "linear/tiles.glsl"
#include "linear/signed_chunk.glsl"

// In quads, two a block. An odd number of quads from one row or column to the next puts eight neighbours
// into different banks.
const uint STRIDE = COLUMN_QUADS + 1;
shared ivec4 tile[(GROUP_ROWS + TILE_COLUMNS) * STRIDE];
// Of each block of a row: its scale and minimum, or the scales of its halves.
shared vec2 row_scales[GROUP_ROWS * STEP_BLOCKS];
// Of each block of a column: scale and scaled sum.
shared vec2 column_scales[TILE_COLUMNS * STEP_BLOCKS];
#ifdef HALF_MINIMA
shared vec2 row_minima[GROUP_ROWS * STEP_BLOCKS];
shared vec2 column_halves[TILE_COLUMNS * STEP_BLOCKS];  // scaled sums of a block's halves
#endif

ivec4 inputs[INPUT_LOADS];
vec2 input_scales[INPUT_LOADS];
uint weight_rows[WEIGHT_LOADS];  // first chunk of the row
uint input_rows[INPUT_LOADS];    // row of the step

void find_sources(uint first_row, uint first_column, uint count) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    weight_rows[i] = min(first_row + weight_item(i) / ROW_CHUNKS, push.rows - 1) * (push.columns / CHUNK);
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    input_rows[i] = row_of_column(first_column + input_item(i) / COLUMN_QUADS, count);
  }
}

// Of the last step, blocks may lie past a row's end: there the last one is loaded once more, and its scale is 0.
void load_step(uint first) {
  uint blocks = push.columns / 32;
  uint width = (push.columns + 1023) & ~1023u;
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uint chunk = min(first / CHUNK + weight_item(i) % ROW_CHUNKS, push.columns / CHUNK - 1);
    weights[i] = load_chunk(weight_rows[i] + chunk);
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uint quad = input_item(i) % COLUMN_QUADS;
    uint block = min(first / 32 + quad / 2, blocks - 1);
    inputs[i] = ivec4(push.inputs.at[input_rows[i] * (width / 16) + block_quad(block, quad % 2)]);
    input_scales[i] = uintBitsToFloat(push.input_scales.at[input_rows[i] * (width / 32) + block]);
  }
}

void store_step(uint first) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uint item = weight_item(i);
    uint slot = row_slot(item / ROW_CHUNKS);
    uint chunk = item % ROW_CHUNKS;
    int words[CHUNK / 4];
    unpack_signed(weights[i], words);
    [[unroll]] for (uint j = 0; j < CHUNK / 16; j++) {
      tile[slot * STRIDE + chunk * (CHUNK / 16) + j] =
          ivec4(words[4 * j], words[4 * j + 1], words[4 * j + 2], words[4 * j + 3]);
    }
    uint place = chunk * CHUNK / 32 * GROUP_ROWS + slot;
#ifdef HALVES
    row_scales[place] = half_scales(weights[i]);
#ifdef HALF_MINIMA
    row_minima[place] = half_minima(weights[i]);
#endif
#else
    // Chunks of 16 are halves of a block, with its scale.
    row_scales[place] = chunk_scale(weights[i]);
#endif
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uint item = input_item(i);
    uint column = item / COLUMN_QUADS;
    uint quad = item % COLUMN_QUADS;
    bool past = first + quad / 2 * 32 >= push.columns;
    tile[(GROUP_ROWS + column) * STRIDE + quad] = inputs[i];
    uint place = quad / 2 * TILE_COLUMNS + column;
    vec2 scale = past ? vec2(0) : input_scales[i];
    column_scales[place] = scale;
#ifdef HALF_MINIMA
    int total = 0;
    [[unroll]] for (uint j = 0; j < 4; j++) total += dotPacked4x8EXT(ONES, inputs[i][j]);
    column_halves[place][quad % 2] = scale.x * float(total);
#endif
  }
}

int dot_quad(ivec4 a, ivec4 b) {
  int sum = 0;
  [[unroll]] for (uint j = 0; j < 4; j++) sum += dotPacked4x8EXT(a[j], b[j]);
  return sum;
}

void multiply_step() {
  for (uint block = 0; block < STEP_BLOCKS; block++) {
    ivec4 low[ROWS];
    ivec4 high[ROWS];
    vec2 scales[ROWS];
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
      uint slot = row_slot(lane_row(i));
      low[i] = tile[slot * STRIDE + 2 * block];
      high[i] = tile[slot * STRIDE + 2 * block + 1];
      scales[i] = row_scales[block * GROUP_ROWS + slot];
    }
    [[unroll]] for (uint j = 0; j < LANE_COLUMNS; j++) {
      uint column = j * COLUMNS + column_lane();
      ivec4 x_low = tile[(GROUP_ROWS + column) * STRIDE + 2 * block];
      ivec4 x_high = tile[(GROUP_ROWS + column) * STRIDE + 2 * block + 1];
      vec2 x_scale = column_scales[block * TILE_COLUMNS + column];
      [[unroll]] for (uint i = 0; i < ROWS; i++) {
        float sum = sums[i * LANE_COLUMNS + j];
#ifdef HALVES
        float product = fma(
            scales[i].x, float(dot_quad(low[i], x_low)), scales[i].y * float(dot_quad(high[i], x_high)));
        sum = fma(x_scale.x, product, sum);
#ifdef HALF_MINIMA
        sum += dot(
            row_minima[block * GROUP_ROWS + row_slot(lane_row(i))], column_halves[block * TILE_COLUMNS + column]);
#endif
#else
        sum = fma(scales[i].x * x_scale.x, float(dot_quad(low[i], x_low) + dot_quad(high[i], x_high)), sum);
#ifdef MINIMUM
        sum = fma(scales[i].y, x_scale.y, sum);
#endif
#endif
        sums[i * LANE_COLUMNS + j] = sum;
      }
    }
  }
}
