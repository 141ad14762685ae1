// outputs = epilogue(weights * inputs / rms) for many columns at a time, on devices without matrix units.
//
// A workgroup takes a tile of rows and columns and walks along the inputs a step at a time: weights, unpacked on the way,
// and inputs go through shared memory, from where each lane multiplies ROWS rows by LANE_COLUMNS columns in registers.
// Loads of the next step are issued before the products of this one and stored after them.
//
// COLUMNS is the number of lanes along columns: the tile is finished as many columns at a time, one of each lane, as
// linear.glsl finishes a workgroup's. Norms over more rows than a tile has are left to dispatches behind it.
//
// Includers define what a step is, STEP inputs or COLUMN_QUADS quads of 16 bytes, and what becomes of it: the functions
// below. A lane's rows are pairs, and the first rows of all pairs lie before the second ones, so that neighbouring lanes
// read from different banks.
#include "common/chunk.glsl"
#include "common/blocks.glsl"

layout(constant_id = 14) const uint LANE_COLUMNS = 4;

const uint GROUP_ROWS = gl_WorkGroupSize.x / COLUMNS * ROWS;
const uint TILE_COLUMNS = COLUMNS * LANE_COLUMNS;

void find_sources(uint first_row, uint first_column, uint count);
void load_step(uint first);
void store_step(uint first);
void multiply_step();

float sums[ROWS * LANE_COLUMNS];

// What an invocation loads in a step: chunks of rows and quads of columns.
const uint ROW_CHUNKS = STEP / CHUNK;
const uint WEIGHT_LOADS = (GROUP_ROWS * ROW_CHUNKS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
const uint INPUT_LOADS = (TILE_COLUMNS * COLUMN_QUADS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
Chunk weights[WEIGHT_LOADS];

// Which of the tile's chunks and quads its i-th are. Past the end it is the last one once more.
uint weight_item(uint i) {
  return min(i * gl_WorkGroupSize.x + gl_LocalInvocationIndex, GROUP_ROWS * ROW_CHUNKS - 1);
}
uint input_item(uint i) {
  return min(i * gl_WorkGroupSize.x + gl_LocalInvocationIndex, TILE_COLUMNS * COLUMN_QUADS - 1);
}

// Neighbours read eight row slots and, where lanes are 32, four columns: a subgroup shares most of what it reads.
const uint BAND = gl_WorkGroupSize.x / COLUMNS < 8 ? gl_WorkGroupSize.x / COLUMNS : 8;
uint row_lane() {
  return gl_LocalInvocationIndex % BAND + gl_LocalInvocationIndex / (BAND * COLUMNS) * BAND;
}
uint column_lane() { return gl_LocalInvocationIndex / BAND % COLUMNS; }

// Where shared memory has a row of the tile, and which row is the lane's i-th.
uint row_slot(uint row) { return row % 2 * (GROUP_ROWS / 2) + row / 2; }
uint lane_row(uint i) { return 2 * (row_lane() + i / 2 * (gl_WorkGroupSize.x / COLUMNS)) + i % 2; }

#include "linear/columns.glsl"

shared float partial_sums[GROUP_ROWS * COLUMNS];
shared float squares[COLUMNS];

float inverse_rms(uint c) { return inversesqrt(squares[c] / float(push.columns) + push.epsilon); }

#include "linear/epilogue.glsl"
#include "linear/shared_outputs.glsl"

// Finishes the columns that are the lanes' j-th: `columns` of them from `first_column` on, of `count`.
void finish_columns(uint j, uint first_row, uint first_column, uint columns, uint count) {
  const uint pairs = GROUP_ROWS / 2;
  barrier();
  // Sums stay in registers only if their indices are constants.
  [[unroll]] for (uint constant_j = 0; constant_j < LANE_COLUMNS; constant_j++) {
    if (constant_j == j) {
      [[unroll]] for (uint i = 0; i < ROWS; i++) {
        partial_sums[place_of(lane_row(i), 0, column_lane())] = sums[i * LANE_COLUMNS + constant_j];
      }
    }
  }
  if (NORM) {
    for (uint c = gl_SubgroupID; c < COLUMNS; c += SUBGROUPS) {
      float sum = sum_squares(first_column + c, count);
      if (gl_SubgroupInvocationID == 0) squares[c] = sum;
    }
  }
  barrier();
  for (uint item = gl_LocalInvocationIndex; item < pairs * columns; item += gl_WorkGroupSize.x) {
    uint pair = item % pairs;
    uint c = item / pairs;
    uint row = first_row + 2 * pair;
    if (row >= push.rows) continue;
    vec2 values = pair_values(vec2(row_sum(2 * pair, c), row_sum(2 * pair + 1, c)), c, row);
    finish_pair(pair, c, row, first_column + c, values, prepare_pair(row, first_column + c));
  }
  finish_outputs(first_row, first_column, columns);
}

void main() {
  uint count = GATHER ? push.step.output_count : push.step.row_count;
  uint first_column = gl_WorkGroupID.x * TILE_COLUMNS;
  if (first_column >= count) return;
  uint first_row = gl_WorkGroupID.y * GROUP_ROWS;
  find_sources(first_row, first_column, count);
  [[unroll]] for (uint i = 0; i < ROWS * LANE_COLUMNS; i++) sums[i] = 0;

  load_step(0);
  store_step(0);
  barrier();
  for (uint next = STEP; next < push.columns; next += STEP) {
    load_step(next);
    multiply_step();
    barrier();
    store_step(next);
    barrier();
  }
  multiply_step();

  for (uint j = 0; j < LANE_COLUMNS; j++) {
    uint column = first_column + j * COLUMNS;
    if (column >= count) break;
    finish_columns(j, first_row, column, min(COLUMNS, count - column), count);
  }
}
