// Columns of a product, and the norm of their inputs.

// The row of the step that a column is, or the last one's for columns beyond them.
uint row_of_column(uint column, uint count) {
  column = min(column, count - 1);
  return GATHER ? push.step.rows[column].output_row : column;
}

// The sum of squares of a column's inputs, from the parts that the stage before left of it. For whole subgroups.
float sum_squares(uint column, uint count) {
  uint first_square = row_of_column(column, count) * push.square_count;
  float sum = 0;
  for (uint i = gl_SubgroupInvocationID; i < push.square_count; i += gl_SubgroupSize) {
    sum += push.squares.at[first_square + i];
  }
  return subgroupAdd(sum);
}
