// Outputs of the rows that lanes hold (see rows.glsl), a pair of rows in one lane: only norms of whole heads or rows
// wait for barriers, and only what goes on as blocks of bytes takes the way through shared memory.

float best_values[COLUMNS];
uint best_rows[COLUMNS];  // of the workgroup's
float own_squares[COLUMNS];

void clear_outputs() {
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    best_values[c] = -3.4e38;
    best_rows[c] = 0;
    own_squares[c] = 0;
  }
}

void keep_output(uint index, uint c, float value) {
  if (NEXT == NEXT_BYTES) partial_sums[c * GROUP_OUTPUTS + index] = value;
  if (EPILOGUE == EPILOGUE_STORE && value > best_values[c]) {
    best_values[c] = value;
    best_rows[c] = index;
  }
}
float kept_output(uint index, uint c) { return partial_sums[c * GROUP_OUTPUTS + index]; }
void keep_squares(uint pair, uint c, float value) { own_squares[c] += value; }

// As in linear/shared_outputs.glsl.
void leave_squares(uint first_row, uint first_column, uint columns) {
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    float sum = subgroupAdd(own_squares[c]);
    if (gl_SubgroupInvocationID == 0 && c < columns) {
      push.extras.data.next.squares.at[(first_column + c) * gl_NumWorkGroups.y + gl_WorkGroupID.y] = sum;
    }
  }
}

void leave_best(uint first_row, uint first_column, uint columns) {
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    float best = subgroupMax(best_values[c]);
    uint best_row = subgroupMin(best_values[c] == best ? best_rows[c] : 0xffffffffu);
    if (gl_SubgroupInvocationID == 0 && c < columns) {
      uint index = 2 * ((first_column + c) * gl_NumWorkGroups.y + gl_WorkGroupID.y);
      push.extras.data.best.at[index] = floatBitsToUint(best);
      push.extras.data.best.at[index + 1] = push.row_offset + first_row + best_row;
    }
  }
}
