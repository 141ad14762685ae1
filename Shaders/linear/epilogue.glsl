// What happens to the linear kernel's sums: one function for a pair of rows, one for the whole workgroup.
#include "common/rope.glsl"

// The sum of row `row` of the workgroup's rows and column `c`, over the subgroups that share it.
float row_sum(uint row, uint c) {
  uint first = row / ROWS * SPLIT;
  float sum = 0;
  [[unroll]] for (uint part = 0; part < SPLIT; part++) {
    sum += partial_sums[((first + part) * ROWS + row % ROWS) * COLUMNS + c];
  }
  return sum;
}

float inverse_rms(uint c) {
  float sum = 0;
  [[unroll]] for (uint part = 0; part < SPLIT; part++) sum += partial_squares[part * COLUMNS + c];
  return inversesqrt(sum / float(push.columns) + push.epsilon);
}

float activate(float x) {
  if (ACTIVATION == ACTIVATION_SILU) return x / (1 + exp(-x));
  // 0.5 * x * (1 + tanh(t)) is x / (1 + exp(-2 t)), which keeps its precision where tanh nears -1.
  float t = 0.7978845608028654 * (x + 0.044715 * x * x * x);
  return x / (1 + exp(-2 * t));
}

// Where a stacked row of Q|K|V belongs.
const uint QUERY = 0;
const uint KEY = 1;
const uint VALUE = 2;
uint role_of_head(uint head) {
  if (head < push.extras.data.head_count) return QUERY;
  return head < push.extras.data.head_count + push.extras.data.kv_head_count ? KEY : VALUE;
}

// Turns a pair of elements of a query or key head, and stores a pair of any head.
void store_head_pair(uint stacked_row, uint column, vec2 values) {
  uint head_size = push.extras.data.head_size;
  uint head = stacked_row / head_size;
  uint element = stacked_row % head_size;
  uint role = role_of_head(head);
  StepRow entry = push.step.rows[column];
  if (role != VALUE && element < push.extras.data.rotated_size) {
    uvec2 frequency = uvec2(push.extras.data.rope.at[element], push.extras.data.rope.at[element + 1]);
    values = rotate(values, frequency, entry.position) * push.extras.data.rope_magnitude;
  }
  if (role == QUERY) {
    uint index = column * push.output_stride + stacked_row;
    push.outputs.at[index] = values.x;
    push.outputs.at[index + 1] = values.y;
    return;
  }
  uint page = push.extras.data.block_tables.at[entry.sequence * push.extras.data.table_stride
                                               + entry.position / KV_PAGE_TOKENS];
  uint slot = entry.position % KV_PAGE_TOKENS;
  uint packed = packHalf2x16(clamp(values, vec2(-65504.0), vec2(65504.0)));
  uint kv_heads = push.extras.data.kv_head_count;
  if (role == KEY) {
    uint kv_head = head - push.extras.data.head_count;
    uint octet = ((page * kv_heads + kv_head) * (head_size / 8) + element / 8) * KV_PAGE_TOKENS + slot;
    push.extras.data.keys.at[octet * 4 + (element % 8) / 2] = packed;
  } else {
    uint kv_head = head - push.extras.data.head_count - kv_heads;
    push.extras.data.values.at[(((page * kv_heads + kv_head) * KV_PAGE_TOKENS + slot) * head_size + element) / 2] =
        packed;
  }
}

void finish_pair(uint row, uint column, vec2 values) {
  uint stacked_row = push.row_offset + row;
  if (EPILOGUE == EPILOGUE_STORE) {
    if (push.softcap != 0) values = push.softcap * tanh(clamp(values / push.softcap, -15.0, 15.0));
    uint index = column * push.output_stride + stacked_row;
    push.outputs.at[index] = values.x;
    if (row + 1 < push.rows) push.outputs.at[index + 1] = values.y;
  } else if (EPILOGUE == EPILOGUE_RESIDUAL) {
    uint index = column * push.output_stride + activation_index(stacked_row);
    push.outputs.at[index] += values.x;
    push.outputs.at[index + 1] += values.y;
  } else if (EPILOGUE == EPILOGUE_GATED) {
    push.outputs.at[column * push.output_stride + activation_index(stacked_row / 2)] =
        activate(values.x) * values.y;
  } else if (EPILOGUE == EPILOGUE_QKV) {
    store_head_pair(stacked_row, column, values);
  } else if (EPILOGUE == EPILOGUE_QKV_NORM) {
    if (role_of_head(stacked_row / push.extras.data.head_size) == VALUE) {
      store_head_pair(stacked_row, column, values);
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
    store_head_pair(head * head_size + i, column, values * scale * weight);
  }
}

// outputs += norm(scratch), once all rows of a column are known.
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
  for (uint row = gl_LocalInvocationIndex; row < push.rows; row += gl_WorkGroupSize.x) {
    uint index = activation_index(row);
    push.outputs.at[column * push.output_stride + index] +=
        push.extras.data.scratch.at[base + index] * scale * push.extras.data.post_norm.at[index];
  }
}

void finish_group(uint first_row, uint first_column, uint columns) {
  if (EPILOGUE == EPILOGUE_QKV_NORM) {
    // A workgroup's rows lie within one head: GROUP_ROWS divides 16, heads are multiples of 16.
    uint head_size = push.extras.data.head_size;
    uint head = (push.row_offset + first_row) / head_size;
    if (role_of_head(head) == VALUE) return;
    if (!last_workgroup(head * gl_NumWorkGroups.x + gl_WorkGroupID.x, head_size / GROUP_ROWS)) return;
    for (uint c = gl_SubgroupID; c < columns; c += SUBGROUPS) finish_head(head, first_column + c);
  } else if (EPILOGUE == EPILOGUE_RESIDUAL_NORM) {
    if (!last_workgroup(gl_WorkGroupID.x, gl_NumWorkGroups.y)) return;
    for (uint c = 0; c < columns; c++) finish_post_norm(first_column + c);
  }
}
