// What happens to the linear kernel's sums: one function for a pair of rows, one for the whole workgroup.
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

// True in the workgroup that is the last of `total` to get here; the counter is 0 again afterwards.
bool last_workgroup(uint counter, uint total) {
  memoryBarrierBuffer();
  barrier();
  if (gl_LocalInvocationIndex == 0) {
    ticket = atomicAdd(push.extras.data.counters.at[counter], 1);
    if (ticket == total - 1) push.extras.data.counters.at[counter] = 0;
  }
  barrier();
  memoryBarrierBuffer();
  return ticket == total - 1;
}

// Norm and rope of one head, once all its rows are known.
void finish_head(uint head, uint column) {
  uint head_size = push.extras.data.head_size;
  uint base = column * push.extras.data.scratch_stride + head * head_size;
  float sum = 0;
  for (uint i = gl_SubgroupInvocationID; i < head_size; i += gl_SubgroupSize) {
    float value = push.extras.data.scratch.at[base + i];
    sum = fma(value, value, sum);
  }
  float scale = inversesqrt(subgroupAdd(sum) / float(head_size) + push.extras.data.norm_epsilon);
  bool query = role_of_head(head) == QUERY;
  for (uint i = 2 * gl_SubgroupInvocationID; i < head_size; i += 2 * gl_SubgroupSize) {
    vec2 values = vec2(push.extras.data.scratch.at[base + i], push.extras.data.scratch.at[base + i + 1]);
    vec2 weight = query ? vec2(push.extras.data.query_norm.at[i], push.extras.data.query_norm.at[i + 1])
                        : vec2(push.extras.data.key_norm.at[i], push.extras.data.key_norm.at[i + 1]);
    uint row = head * head_size + i;
    // Some drivers run this for workgroups that returned, with no lane active: what they load must exist.
    HeadPlace place = head_place(row, min(column, push.step.row_count - 1));
    store_head_pair(row, column, values * scale * weight, place);
  }
}

// outputs += norm(scratch), once all rows of a column are known, and what the next product wants of it.
void finish_post_norm(uint column) {
  uint base = column * push.extras.data.scratch_stride;
  float sum = 0;
  for (uint row = gl_LocalInvocationIndex; row < push.rows; row += gl_WorkGroupSize.x) {
    float value = push.extras.data.scratch.at[base + activation_index(row)];
    sum = fma(value, value, sum);
  }
  sum = subgroupAdd(sum);
  barrier();
  if (gl_SubgroupInvocationID == 0) partial_sums[gl_SubgroupID] = sum;
  barrier();
  float total = 0;
  for (uint i = 0; i < SUBGROUPS; i++) total += partial_sums[i];
  float scale = inversesqrt(total / float(push.rows) + push.extras.data.norm_epsilon);
  NextInputs next = push.extras.data.next;
  float squares = 0;
  for (uint row = gl_LocalInvocationIndex; row < push.rows; row += gl_WorkGroupSize.x) {
    uint index = activation_index(row);
    uint place = column * push.output_stride + index;
    float x = push.outputs.at[place]
        + push.extras.data.scratch.at[base + index] * scale * push.extras.data.post_norm.at[index];
    push.outputs.at[place] = x;
    squares = fma(x, x, squares);
    if (NEXT == NEXT_NONE) continue;
    x *= next.norm.at[index];
    if (NEXT == NEXT_FLOATS) {
      next.values.at[column * next.width + index] = floatBitsToUint(x);
    } else {
      push.extras.data.scratch.at[base + index] = x;
    }
  }
  if (NEXT == NEXT_NONE) return;
  squares = subgroupAdd(squares);
  memoryBarrierBuffer();
  barrier();
  if (gl_SubgroupInvocationID == 0) partial_sums[gl_SubgroupID] = squares;
  barrier();
  if (gl_LocalInvocationIndex == 0) {
    float column_squares = 0;
    for (uint i = 0; i < SUBGROUPS; i++) column_squares += partial_sums[i];
    next.squares.at[column] = column_squares;
  }
  if (NEXT != NEXT_BYTES) return;
  memoryBarrierBuffer();
  for (uint block = gl_SubgroupID; block < push.rows / 32; block += SUBGROUPS) {
    store_block(next.values, next.scales, column, next.width, block, column * (push.rows / 32) + block);
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

void finish_group(uint first_row, uint first_column, uint columns) {
  if (EPILOGUE == EPILOGUE_STORE) {
    leave_best(first_row, first_column, columns);
  } else if (EPILOGUE == EPILOGUE_QKV_NORM) {
    // A workgroup's rows lie within one head: GROUP_ROWS divides 16, heads are multiples of 16.
    uint head_size = push.extras.data.head_size;
    uint head = (push.row_offset + first_row) / head_size;
    if (role_of_head(head) == VALUE) return;
    if (!last_workgroup(head * gl_NumWorkGroups.x + gl_WorkGroupID.x, head_size / GROUP_ROWS)) return;
    for (uint c = gl_SubgroupID; c < columns; c += SUBGROUPS) {
      // Some CPU drivers run a loop's uniform loads once even where no invocation takes part.
      finish_head(head, first_column + min(c, columns - 1));
    }
  } else if (EPILOGUE == EPILOGUE_RESIDUAL_NORM) {
    if (!last_workgroup(gl_WorkGroupID.x, gl_NumWorkGroups.y)) return;
    for (uint c = 0; c < columns; c++) finish_post_norm(first_column + c);
  } else if (NEXT == NEXT_BYTES || (NEXT == NEXT_FLOATS && EPILOGUE == EPILOGUE_RESIDUAL)) {
    finish_next(first_row, first_column, columns);
  }
}
