// What happens to the linear kernel's sums: one function for a pair of rows, one for what all rows of a workgroup
// leave together.
#include "common/activate.glsl"
#include "common/heads.glsl"
#include "common/softcap.glsl"

// Outputs of the stage that the workgroup's rows make: a pair of gate and up makes one.
const uint GROUP_OUTPUTS = EPILOGUE == EPILOGUE_GATED ? GROUP_ROWS / 2 : GROUP_ROWS;

// How the kernel keeps what its whole workgroup makes something of, once its pairs are finished: outputs of the stage,
// and the squares of pairs. In linear/shared_outputs.glsl and linear/lane_outputs.glsl.
void keep_output(uint index, uint c, float value);
void keep_squares(uint pair, uint c, float value);
float kept_output(uint index, uint c);
void leave_squares(uint first_row, uint first_column, uint columns);
void leave_best(uint first_row, uint first_column, uint columns);

// The results of a pair of rows from their sums, `row` the first of them in the product.
vec2 pair_values(vec2 values, uint c, uint row) {
  if (NORM) values *= inverse_rms(c);
  if (BIAS) {
    values.x += push.bias.at[row];
    if (row + 1 < push.rows) values.y += push.bias.at[row + 1];
  }
  return values;
}

// Blocks count on from column to column: those of the workgroup's rows, or, after a post norm, those of all rows.
float block_value(uint place, uint i) {
  if (EPILOGUE == EPILOGUE_RESIDUAL_NORM) {
    uint blocks = push.rows / 32;
    return push.extras.data.scratch.at[place / blocks * push.extras.data.scratch_stride
                                       + activation_index(place % blocks * 32 + i)];
  }
  const uint blocks = GROUP_OUTPUTS / 32;
  return kept_output(place % blocks * 32 + i, place / blocks);
}

// What finishing a pair of rows needs besides their sums: loaded before the sums are known, so that nothing waits for
// it after them.
struct Prepared {
  vec2 residual;
  vec2 norm;  // weight of the next norm
  HeadPlace place;
};

Prepared prepare_pair(uint row, uint column) {
  Prepared prepared = Prepared(vec2(0), vec2(0), HeadPlace(uvec2(0), 0, 0));
  uint stacked_row = push.row_offset + row;
  if (EPILOGUE == EPILOGUE_RESIDUAL) {
    uint index = activation_index(stacked_row);
    uint place = column * push.output_stride + index;
    prepared.residual = vec2(push.outputs.at[place], push.outputs.at[place + 1]);
    if (NEXT != NEXT_NONE) {
      prepared.norm = vec2(push.extras.data.next.norm.at[index], push.extras.data.next.norm.at[index + 1]);
    }
  } else if (EPILOGUE == EPILOGUE_QKV || EPILOGUE == EPILOGUE_QKV_NORM) {
    prepared.place = head_place(stacked_row, column);
  }
  return prepared;
}

// What becomes of a pair of rows: pair `pair` and column `c` of the workgroup, `row` and `column` of the product.
void finish_pair(uint pair, uint c, uint row, uint column, vec2 values, Prepared prepared) {
  uint stacked_row = push.row_offset + row;
  if (EPILOGUE == EPILOGUE_STORE) {
    if (push.softcap != 0) values = softcapped(values, push.softcap);
    uint index = column * push.output_stride + stacked_row;
    push.outputs.at[index] = values.x;
    if (row + 1 < push.rows) push.outputs.at[index + 1] = values.y;
    values.y = row + 1 < push.rows ? values.y : -3.4e38;
    keep_output(2 * pair, c, values.x);
    keep_output(2 * pair + 1, c, values.y);
  } else if (EPILOGUE == EPILOGUE_RESIDUAL) {
    uint index = activation_index(stacked_row);
    uint place = column * push.output_stride + index;
    vec2 x = prepared.residual + values;
    push.outputs.at[place] = x.x;
    push.outputs.at[place + 1] = x.y;
    if (NEXT == NEXT_NONE) return;
    keep_squares(pair, c, dot(x, x));
    NextInputs next = push.extras.data.next;
    x *= prepared.norm;
    if (NEXT == NEXT_FLOATS) {
      next.values.at[column * next.width + index] = floatBitsToUint(x.x);
      next.values.at[column * next.width + index + 1] = floatBitsToUint(x.y);
    } else {
      keep_output(2 * pair, c, x.x);
      keep_output(2 * pair + 1, c, x.y);
    }
  } else if (EPILOGUE == EPILOGUE_GATED) {
    float value = activate(values.x) * values.y;
    if (NEXT == NEXT_BYTES) {
      keep_output(pair, c, value);
    } else {
      push.outputs.at[column * push.output_stride + activation_index(stacked_row / 2)] = value;
    }
  } else if (EPILOGUE == EPILOGUE_QKV) {
    store_head_pair(stacked_row, column, values, prepared.place);
  } else if (EPILOGUE == EPILOGUE_QKV_NORM) {
    if (role_of_head(stacked_row / push.extras.data.head_size) == VALUE) {
      store_head_pair(stacked_row, column, values, prepared.place);
    } else {
      uint index = column * push.extras.data.scratch_stride + stacked_row;
      push.extras.data.scratch.at[index] = values.x;
      push.extras.data.scratch.at[index + 1] = values.y;
    }
  } else {
    uint index = column * push.extras.data.scratch_stride + activation_index(stacked_row);
    push.extras.data.scratch.at[index] = values.x;
    push.extras.data.scratch.at[index + 1] = values.y;
  }
}

// The next product's inputs of the workgroup's rows, in blocks of bytes, and the rows' part of the sum of squares.
void finish_next(uint first_row, uint first_column, uint columns) {
  NextInputs next = push.extras.data.next;
  if (NEXT == NEXT_BYTES) {
    barrier();
    const uint blocks = GROUP_OUTPUTS / 32;
    uint first_block = ((push.row_offset + first_row) / (GROUP_ROWS / GROUP_OUTPUTS)) / 32;
    for (uint i = gl_SubgroupID; i < blocks * columns; i += SUBGROUPS) {
      uint c = i / blocks;
      uint block = i % blocks;
      if (first_row + block * (32 * GROUP_ROWS / GROUP_OUTPUTS) >= push.rows) continue;
      store_block(next.values, next.scales, first_column + c, next.width, first_block + block, i);
    }
  }
  if (EPILOGUE == EPILOGUE_RESIDUAL) leave_squares(first_row, first_column, columns);
}

// What the workgroup's rows leave together, where no norm over more rows comes first.
void finish_outputs(uint first_row, uint first_column, uint columns) {
  if (EPILOGUE == EPILOGUE_STORE) {
    leave_best(first_row, first_column, columns);
  } else if (NEXT == NEXT_BYTES || (NEXT == NEXT_FLOATS && EPILOGUE == EPILOGUE_RESIDUAL)) {
    finish_next(first_row, first_column, columns);
  }
}
