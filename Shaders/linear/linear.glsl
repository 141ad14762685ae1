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

const uint GROUP_ROWS = SUBGROUPS / SPLIT * ROWS;

shared float partial_sums[SUBGROUPS * ROWS * COLUMNS];
shared float inverse_rms[COLUMNS];
shared uint ticket;

float sums[ROWS * COLUMNS];
uint weight_rows[ROWS];      // first chunk of each row
uint column_rows[COLUMNS];   // row of the step that each column is

// The row of the step that a column is, or the last one's for columns beyond them.
uint row_of_column(uint column, uint count) {
  column = min(column, count - 1);
  return GATHER ? push.step.rows[column].output_row : column;
}

#ifdef BLOCK_INPUTS
#include "linear/byte_products.glsl"
#else
#include "linear/float_products.glsl"
#endif
#include "linear/epilogue.glsl"

void main() {
  uint count = GATHER ? push.step.output_count : push.step.row_count;
  uint first_column = gl_WorkGroupID.x * COLUMNS;
  if (first_column >= count) return;
  uint part = gl_SubgroupID % SPLIT;
  uint first_row = gl_WorkGroupID.y * GROUP_ROWS;
  uint chunks_per_row = push.columns / CHUNK;
  [[unroll]] for (uint r = 0; r < ROWS; r++) {
    uint row = min(first_row + gl_SubgroupID / SPLIT * ROWS + r, push.rows - 1);
    weight_rows[r] = row * chunks_per_row;
  }
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) column_rows[c] = row_of_column(first_column + c, count);
  [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++) sums[i] = 0;

  uint stride = gl_SubgroupSize * SPLIT;
  uint chunk = part * gl_SubgroupSize + gl_SubgroupInvocationID;
  for (; chunk + (UNROLL - 1) * stride < chunks_per_row; chunk += UNROLL * stride) {
    Chunk chunks[UNROLL * ROWS];
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
      [[unroll]] for (uint r = 0; r < ROWS; r++) {
        chunks[u * ROWS + r] = load_chunk(weight_rows[r] + chunk + u * stride);
      }
    }
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
      Chunk column_chunks[ROWS];
      [[unroll]] for (uint r = 0; r < ROWS; r++) column_chunks[r] = chunks[u * ROWS + r];
      accumulate(column_chunks, chunk + u * stride);
    }
  }
  if (UNROLL > 1) {
    for (; chunk < chunks_per_row; chunk += stride) {
      Chunk chunks[ROWS];
      [[unroll]] for (uint r = 0; r < ROWS; r++) chunks[r] = load_chunk(weight_rows[r] + chunk);
      accumulate(chunks, chunk);
    }
  }

  [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++) {
    float sum = subgroupAdd(sums[i]);
    if (gl_SubgroupInvocationID == i % gl_SubgroupSize) partial_sums[gl_SubgroupID * ROWS * COLUMNS + i] = sum;
  }
  if (NORM) {
    for (uint c = gl_SubgroupID; c < COLUMNS; c += SUBGROUPS) {
      uint first_square = row_of_column(first_column + c, count) * push.square_count;
      float sum = 0;
      for (uint i = gl_SubgroupInvocationID; i < push.square_count; i += gl_SubgroupSize) {
        sum += push.squares.at[first_square + i];
      }
      sum = subgroupAdd(sum);
      if (gl_SubgroupInvocationID == 0) inverse_rms[c] = inversesqrt(sum / float(push.columns) + push.epsilon);
    }
  }
  barrier();

  // Rows come in pairs: rope pairs, or gate and up.
  const uint pairs = GROUP_ROWS / 2;
  for (uint item = gl_LocalInvocationIndex; item < pairs * COLUMNS; item += gl_WorkGroupSize.x) {
    uint pair = item % pairs;
    uint c = item / pairs;
    uint row = first_row + 2 * pair;
    if (first_column + c >= count || row >= push.rows) continue;
    vec2 values = vec2(row_sum(2 * pair, c), row_sum(2 * pair + 1, c));
    if (NORM) values *= inverse_rms[c];
    if (BIAS) {
      values.x += push.bias.at[row];
      if (row + 1 < push.rows) values.y += push.bias.at[row + 1];
    }
    finish_pair(pair, c, row, first_column + c, values);
  }
  finish_group(first_row, first_column, min(COLUMNS, count - first_column));
}
