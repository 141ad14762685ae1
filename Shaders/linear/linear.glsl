// outputs = epilogue(weights * inputs / rms) for a few columns at a time: every weight is read once for all of them.
//
// A subgroup owns ROWS rows; its lanes walk along the inputs, a chunk of 16 bytes of weights each, so a subgroup
// reads whole cache lines. SPLIT subgroups may share rows, each taking a part of the inputs: that fills the device
// when there are few rows. Sums meet in the subgroup, then in shared memory, in a fixed order.
// Inputs come from the stage before as this product wants them (see common/blocks.glsl and activation_index), already
// multiplied by the weight of the norm between the two: a dot product is linear, so 1/rms can multiply its result.
// Includers define BLOCK_INPUTS for inputs in blocks of bytes.
#include "common/chunk.glsl"
#include "common/blocks.glsl"
#include "common/chain.glsl"

const uint GROUP_ROWS = SUBGROUPS / SPLIT * ROWS;

shared float partial_sums[SUBGROUPS * ROWS * COLUMNS];
// Sums of squares of the columns, or of one column by each subgroup.
shared float squares[COLUMNS == 1 ? SUBGROUPS : COLUMNS];
shared uint ticket;

float sums[ROWS * COLUMNS];
uint weight_rows[ROWS];      // first chunk of each row
uint column_rows[COLUMNS];   // row of the step that each column is

#include "linear/columns.glsl"

float inverse_rms(uint c) {
  float sum = squares[c];
  if (COLUMNS == 1) {
    [[unroll]] for (uint i = 1; i < SUBGROUPS; i++) sum += squares[i];
  }
  return inversesqrt(sum / float(push.columns) + push.epsilon);
}

#ifdef BLOCK_INPUTS
#include "linear/byte_products.glsl"
#else
#include "linear/float_products.glsl"
#endif
#include "linear/epilogue.glsl"
#include "linear/finish_group.glsl"
#include "linear/shared_outputs.glsl"

// UNROLL chunks of each row, whose loads are under way at once.
Chunk chunks[UNROLL * ROWS];

void load_chunks(uint chunk, uint stride) {
  [[unroll]] for (uint u = 0; u < UNROLL; u++) {
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
      chunks[u * ROWS + r] = load_chunk(weight_rows[r] + chunk + u * stride);
    }
  }
}

void accumulate_chunks(uint chunk, uint stride) {
  [[unroll]] for (uint u = 0; u < UNROLL; u++) {
    Chunk column_chunks[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) column_chunks[r] = chunks[u * ROWS + r];
    accumulate(column_chunks, chunk + u * stride);
  }
}

void multiply() {
  uint first_column = gl_WorkGroupID.x * COLUMNS;
  // A single column at a time: as many workgroups as columns, so that nothing waits for a look at the step.
  uint count = first_column + 1;
  if (COLUMNS > 1) {
    count = GATHER ? push.step.output_count : push.step.row_count;
    if (first_column >= count) return;
  }
  uint part = gl_SubgroupID % SPLIT;
  uint first_row = gl_WorkGroupID.y * GROUP_ROWS;
  uint chunks_per_row = push.columns / CHUNK;
  [[unroll]] for (uint r = 0; r < ROWS; r++) {
    uint row = min(first_row + gl_SubgroupID / SPLIT * ROWS + r, push.rows - 1);
    weight_rows[r] = row * chunks_per_row;
  }
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) column_rows[c] = row_of_column(first_column + c, count);
  [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++) sums[i] = 0;

  // The first weights are under way before what the stage before leaves is there,
  uint stride = gl_SubgroupSize * SPLIT;
  uint chunk = part * gl_SubgroupSize + gl_SubgroupInvocationID;
  bool loads_early = CHAIN && chunk + (UNROLL - 1) * stride < chunks_per_row;
  if (loads_early) load_chunks(chunk, stride);
  wait_for_stage_before();

  // and loads that the end waits for before the products: each invocation's first pair of rows,
  const uint pairs = GROUP_ROWS / 2;
  uint first_item = gl_LocalInvocationIndex;
  Prepared prepared;
  {
    uint item = min(first_item, pairs * COLUMNS - 1);
    uint row = min(first_row + 2 * (item % pairs), push.rows - 1);
    prepared = prepare_pair(row, min(first_column + item / pairs, count - 1));
  }
  // and the parts of a single column's sum of squares, which all subgroups share.
  const uint EARLY_SQUARES = 4;
  float square_parts[EARLY_SQUARES];
  if (NORM && COLUMNS == 1) {
    uint first_square = column_rows[0] * push.square_count;
    [[unroll]] for (uint i = 0; i < EARLY_SQUARES; i++) {
      uint index = gl_LocalInvocationIndex + i * gl_WorkGroupSize.x;
      square_parts[i] = index < push.square_count ? push.squares.at[first_square + index] : 0.0;
    }
  }

  stage_inputs();
  if (loads_early) {
    accumulate_chunks(chunk, stride);
    chunk += UNROLL * stride;
  }
  for (; chunk + (UNROLL - 1) * stride < chunks_per_row; chunk += UNROLL * stride) {
    load_chunks(chunk, stride);
    accumulate_chunks(chunk, stride);
  }
  if (UNROLL > 1) {
    for (; chunk < chunks_per_row; chunk += stride) {
      Chunk column_chunks[ROWS];
      [[unroll]] for (uint r = 0; r < ROWS; r++) column_chunks[r] = load_chunk(weight_rows[r] + chunk);
      accumulate(column_chunks, chunk);
    }
  }

  [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++) {
    float sum = subgroupAdd(sums[i]);
    if (gl_SubgroupInvocationID == i % gl_SubgroupSize) partial_sums[gl_SubgroupID * ROWS * COLUMNS + i] = sum;
  }
  if (NORM && COLUMNS == 1) {
    float sum = 0;
    [[unroll]] for (uint i = 0; i < EARLY_SQUARES; i++) sum += square_parts[i];
    uint first_square = column_rows[0] * push.square_count;
    for (uint i = gl_LocalInvocationIndex + EARLY_SQUARES * gl_WorkGroupSize.x; i < push.square_count;
         i += gl_WorkGroupSize.x) {
      sum += push.squares.at[first_square + i];
    }
    sum = subgroupAdd(sum);
    if (gl_SubgroupInvocationID == 0) squares[gl_SubgroupID] = sum;
  } else if (NORM) {
    for (uint c = gl_SubgroupID; c < COLUMNS; c += SUBGROUPS) {
      float sum = sum_squares(first_column + c, count);
      if (gl_SubgroupInvocationID == 0) squares[c] = sum;
    }
  }
  barrier();

  // Rows come in pairs: rope pairs, or gate and up.
  for (uint item = first_item; item < pairs * COLUMNS; item += gl_WorkGroupSize.x) {
    uint pair = item % pairs;
    uint c = item / pairs;
    uint row = first_row + 2 * pair;
    if (first_column + c >= count || row >= push.rows) continue;
    vec2 values = pair_values(vec2(row_sum(2 * pair, c), row_sum(2 * pair + 1, c)), c, row);
    if (item != first_item) prepared = prepare_pair(row, first_column + c);
    finish_pair(pair, c, row, first_column + c, values, prepared);
  }
  finish_group(first_row, first_column, min(COLUMNS, count - first_column));
}

void main() {
  multiply();
  finish_stage();
}
