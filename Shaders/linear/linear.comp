#version 460
// outputs = epilogue(weights * norm(inputs)) for a few columns at a time: every weight is read once for all of them.
//
// A subgroup owns ROWS rows; its lanes walk along the inputs, a chunk of 16 bytes of weights each, so a subgroup
// reads whole cache lines. SPLIT subgroups may share rows, each taking a part of the inputs: that fills the device
// when there are few rows. Sums meet in the subgroup, then in shared memory, in a fixed order.
// The input norm costs no pass of its own: a dot product is linear, so 1/rms multiplies its result, and the sum of
// squares comes from the inputs that the lanes read anyway.
//! formats: all
#include FORMAT_FILE
#include "common/types.glsl"
#include "common/bytes.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SUBGROUPS = 4;
layout(constant_id = 2) const uint SPLIT = 1;
layout(constant_id = 3) const uint ROWS = 4;
layout(constant_id = 4) const uint COLUMNS = 1;
layout(constant_id = 5) const uint EPILOGUE = EPILOGUE_STORE;
layout(constant_id = 6) const bool NORM = false;
layout(constant_id = 7) const bool BIAS = false;
layout(constant_id = 8) const bool GATHER = false;  // column i is the step's i-th output row
layout(constant_id = 9) const uint ACTIVATION = ACTIVATION_SILU;

layout(push_constant) uniform Push { LinearPush push; };

#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"

const uint GROUP_ROWS = SUBGROUPS / SPLIT * ROWS;
const uint UNROLL = 32u / CHUNK;

shared float partial_sums[SUBGROUPS * ROWS * COLUMNS];
shared float partial_squares[SUBGROUPS * COLUMNS];
shared uint ticket;

float sums[ROWS * COLUMNS];
float squares[COLUMNS];
uint weight_rows[ROWS];    // first chunk of each row
uint input_rows[COLUMNS];  // first quad of each column's inputs

// The chunk's part of a product, but for its scale.
void unpack_unscaled(Chunk chunk, out vec4 w[CHUNK / 4]) {
#ifdef SCALED
  unpack_quants(chunk, w);
#else
  unpack_chunk(chunk, w);
#endif
}

void accumulate(uint chunk) {
  Chunk chunks[ROWS];
  [[unroll]] for (uint r = 0; r < ROWS; r++) chunks[r] = load_chunk(weight_rows[r] + chunk);
  uint quad = chunk * (CHUNK / 4);
  vec4 norm[CHUNK / 4];
  if (NORM) {
    [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) norm[j] = push.norm.at[activation_quad(quad + j)];
  }
  vec4 w[ROWS][CHUNK / 4];
  if (COLUMNS > 1) {
    [[unroll]] for (uint r = 0; r < ROWS; r++) unpack_unscaled(chunks[r], w[r]);
  }
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    vec4 x[CHUNK / 4];
    [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
      x[j] = push.inputs.at[input_rows[c] + activation_quad(quad + j)];
    }
    if (NORM) {
      vec4 s = vec4(0);
      [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
        s = fma(x[j], x[j], s);
        x[j] *= norm[j];
      }
      squares[c] += (s.x + s.y) + (s.z + s.w);
    }
#ifdef MINIMUM
    vec4 four = vec4(0);
    [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) four += x[j];
    float total = (four.x + four.y) + (four.z + four.w);
#endif
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
      if (COLUMNS == 1) unpack_unscaled(chunks[r], w[r]);
      vec4 s = vec4(0);
      [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) s = fma(w[r][j], x[j], s);
      float product = (s.x + s.y) + (s.z + s.w);
#ifdef SCALED
      vec2 scale = chunk_scale(chunks[r]);
#ifdef MINIMUM
      sums[r * COLUMNS + c] = fma(scale.y, total, sums[r * COLUMNS + c]);
#endif
      sums[r * COLUMNS + c] = fma(scale.x, product, sums[r * COLUMNS + c]);
#else
      sums[r * COLUMNS + c] += product;
#endif
    }
  }
}

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
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    uint column = min(first_column + c, count - 1);
    if (GATHER) column = push.step.rows[column].output_row;
    input_rows[c] = column * (push.input_stride / 4);
    squares[c] = 0;
  }
  [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++) sums[i] = 0;

  uint stride = gl_SubgroupSize * SPLIT;
  uint chunk = part * gl_SubgroupSize + gl_SubgroupInvocationID;
  for (; chunk + (UNROLL - 1) * stride < chunks_per_row; chunk += UNROLL * stride) {
    [[unroll]] for (uint u = 0; u < UNROLL; u++) accumulate(chunk + u * stride);
  }
  if (UNROLL > 1) {
    for (; chunk < chunks_per_row; chunk += stride) accumulate(chunk);
  }

  [[unroll]] for (uint i = 0; i < ROWS * COLUMNS; i++) {
    float sum = subgroupAdd(sums[i]);
    if (gl_SubgroupInvocationID == i % gl_SubgroupSize) partial_sums[gl_SubgroupID * ROWS * COLUMNS + i] = sum;
  }
  if (NORM) {
    [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
      float sum = subgroupAdd(squares[c]);
      if (gl_SubgroupInvocationID == 0) partial_squares[gl_SubgroupID * COLUMNS + c] = sum;
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
    if (NORM) values *= inverse_rms(c);
    if (BIAS) {
      values.x += push.bias.at[row];
      if (row + 1 < push.rows) values.y += push.bias.at[row + 1];
    }
    finish_pair(row, first_column + c, values);
  }
  finish_group(first_row, first_column, min(COLUMNS, count - first_column));
}
