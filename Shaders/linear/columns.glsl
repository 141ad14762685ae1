// Columns of a product, and the norm of their inputs. Wants `squares`, shared memory with a place for each column.

// The row of the step that a column is, or the last one's for columns beyond them.
uint row_of_column(uint column, uint count) {
  column = min(column, count - 1);
  return GATHER ? push.step.rows[column].output_row : column;
}

// The sum of squares of every column's inputs, from the parts that the stage before left of it.
void sum_squares(uint first_column, uint count) {
  for (uint c = gl_SubgroupID; c < COLUMNS; c += SUBGROUPS) {
    uint first_square = row_of_column(first_column + c, count) * push.square_count;
    float sum = 0;
    for (uint i = gl_SubgroupInvocationID; i < push.square_count; i += gl_SubgroupSize) {
      sum += push.squares.at[first_square + i];
    }
    sum = subgroupAdd(sum);
    if (gl_SubgroupInvocationID == 0) squares[c] = sum;
  }
}
