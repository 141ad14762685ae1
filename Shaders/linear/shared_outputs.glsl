// Sums and outputs of a workgroup's rows in shared memory: of rows that subgroups hold (see linear.glsl).

// Where partial_sums has row `row` of the workgroup's rows and column `c`, summed by one of the subgroups that share it.
uint place_of(uint row, uint part, uint c) {
  return ((row / ROWS * SPLIT + part) * ROWS + row % ROWS) * COLUMNS + c;
}

// The sum of a row, over the subgroups that share it.
float row_sum(uint row, uint c) {
  float sum = 0;
  [[unroll]] for (uint part = 0; part < SPLIT; part++) sum += partial_sums[place_of(row, part, c)];
  return sum;
}

shared float pair_squares[NEXT == NEXT_NONE ? 1u : GROUP_ROWS / 2 * COLUMNS];

// Outputs take the places of their rows' sums, which nothing reads any more.
uint place_of_output(uint index, uint c) {
  return place_of(EPILOGUE == EPILOGUE_GATED ? 2 * index : index, 0, c);
}

void keep_output(uint index, uint c, float value) { partial_sums[place_of_output(index, c)] = value; }
float kept_output(uint index, uint c) { return partial_sums[place_of_output(index, c)]; }
void keep_squares(uint pair, uint c, float value) { pair_squares[c * (GROUP_ROWS / 2) + pair] = value; }

// From so many rows on, a subgroup goes through those of a column, not a single lane.
const bool SHARES_COLUMNS = GROUP_ROWS >= 64;

// The rows' part of the sum of squares of each column.
void leave_squares(uint first_row, uint first_column, uint columns) {
  barrier();
  uint pairs = min(GROUP_ROWS, push.rows - first_row) / 2;
  uint first = SHARES_COLUMNS ? gl_SubgroupID : gl_LocalInvocationIndex;
  uint step = SHARES_COLUMNS ? SUBGROUPS : gl_WorkGroupSize.x;
  for (uint c = first; c < columns; c += step) {
    float sum = 0;
    if (SHARES_COLUMNS) {
      for (uint pair = gl_SubgroupInvocationID; pair < pairs; pair += gl_SubgroupSize) {
        sum += pair_squares[c * (GROUP_ROWS / 2) + pair];
      }
      sum = subgroupAdd(sum);
    } else {
      for (uint pair = 0; pair < pairs; pair++) sum += pair_squares[c * (GROUP_ROWS / 2) + pair];
    }
    if (!SHARES_COLUMNS || gl_SubgroupInvocationID == 0) {
      push.extras.data.next.squares.at[(first_column + c) * gl_NumWorkGroups.y + gl_WorkGroupID.y] = sum;
    }
  }
}

// The largest of the workgroup's outputs in each column and its row, the lowest among equals: for a greedy choice.
void leave_best(uint first_row, uint first_column, uint columns) {
  barrier();
  uint rows = min(GROUP_ROWS, push.rows - first_row);
  uint first = SHARES_COLUMNS ? gl_SubgroupID : gl_LocalInvocationIndex;
  uint step = SHARES_COLUMNS ? SUBGROUPS : gl_WorkGroupSize.x;
  for (uint c = first; c < columns; c += step) {
    float best = -3.4e38;
    uint best_row = 0;
    for (uint row = SHARES_COLUMNS ? gl_SubgroupInvocationID : 0; row < rows;
         row += SHARES_COLUMNS ? gl_SubgroupSize : 1) {
      float value = kept_output(row, c);
      if (value > best) {
        best = value;
        best_row = row;
      }
    }
    if (SHARES_COLUMNS) {
      float largest = subgroupMax(best);
      best_row = subgroupMin(best == largest ? best_row : 0xffffffffu);
      best = largest;
    }
    if (!SHARES_COLUMNS || gl_SubgroupInvocationID == 0) {
      uint index = 2 * ((first_column + c) * gl_NumWorkGroups.y + gl_WorkGroupID.y);
      push.extras.data.best.at[index] = floatBitsToUint(best);
      push.extras.data.best.at[index + 1] = push.row_offset + first_row + best_row;
    }
  }
}
