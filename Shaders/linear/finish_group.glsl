// What a workgroup does when its pairs are finished. Norms over more rows than it has are made by the last workgroup
// to get there, found with an atomic counter that it resets.

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

void finish_group(uint first_row, uint first_column, uint columns) {
  if (EPILOGUE == EPILOGUE_QKV_NORM) {
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
  } else {
    finish_outputs(first_row, first_column, columns);
  }
}
