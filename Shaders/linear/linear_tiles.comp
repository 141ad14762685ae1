#version 460
// Tiles of products with float32 inputs: every format, on every device.
//! formats: all
#include FORMAT_FILE
#include "linear/constants.glsl"
#define FORMAT_KERNEL
#include FORMAT_FILE

const uint STEP = 32;
const uint COLUMN_QUADS = STEP / 4;

#include "linear/tiles.glsl"

// In quads. An odd number of quads from one row or column to the next puts eight neighbours into different banks.
const uint STRIDE = COLUMN_QUADS + 1;
shared vec4 tile[(GROUP_ROWS + TILE_COLUMNS) * STRIDE];

vec4 inputs[INPUT_LOADS];
uint weight_sources[WEIGHT_LOADS];
uint input_sources[INPUT_LOADS];

void find_sources(uint first_row, uint first_column, uint count) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uint item = weight_item(i);
    uint row = min(first_row + item / ROW_CHUNKS, push.rows - 1);
    weight_sources[i] = row * (push.columns / CHUNK) + item % ROW_CHUNKS;
  }
  uint stride = ((push.columns + 1023) & ~1023u) / 4;
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    input_sources[i] = row_of_column(first_column + input_item(i) / COLUMN_QUADS, count) * stride;
  }
}

void load_step(uint first) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) weights[i] = load_chunk(weight_sources[i] + first / CHUNK);
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    inputs[i] = push.inputs.at[input_sources[i] + activation_quad(first / 4 + input_item(i) % COLUMN_QUADS)];
  }
}

void store_step(uint first) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uint item = weight_item(i);
    uint at = row_slot(item / ROW_CHUNKS) * STRIDE + item % ROW_CHUNKS * (CHUNK / 4);
    vec4 w[CHUNK / 4];
    unpack_chunk(weights[i], w);
    [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) tile[at + j] = w[j];
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uint item = input_item(i);
    tile[(GROUP_ROWS + item / COLUMN_QUADS) * STRIDE + item % COLUMN_QUADS] = inputs[i];
  }
}

void multiply_step() {
  for (uint k = 0; k < COLUMN_QUADS; k++) {
    vec4 w[ROWS];
    [[unroll]] for (uint i = 0; i < ROWS; i++) w[i] = tile[row_slot(lane_row(i)) * STRIDE + k];
    [[unroll]] for (uint j = 0; j < LANE_COLUMNS; j++) {
      vec4 x = tile[(GROUP_ROWS + j * COLUMNS + column_lane()) * STRIDE + k];
      [[unroll]] for (uint i = 0; i < ROWS; i++) {
        float sum = sums[i * LANE_COLUMNS + j];
        sum = fma(w[i].x, x.x, sum);
        sum = fma(w[i].y, x.y, sum);
        sum = fma(w[i].z, x.z, sum);
        sums[i * LANE_COLUMNS + j] = fma(w[i].w, x.w, sum);
      }
    }
  }
}
