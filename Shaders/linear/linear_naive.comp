#version 460
// The linear kernel as one writes it first, for comparison and as a second opinion: a workgroup for a few outputs of one
// token, whose invocations walk along the inputs. Tokens share no weights, and nothing is loaded ahead.
//! formats: all
#include FORMAT_FILE
#include "linear/constants.glsl"
#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"
#include "common/blocks.glsl"

const uint GROUP_ROWS = ROWS;

shared float partial_sums[SUBGROUPS * GROUP_ROWS];
shared float squares[1];
shared uint ticket;

#include "linear/columns.glsl"

float inverse_rms(uint c) { return inversesqrt(squares[c] / float(push.columns) + push.epsilon); }

#include "linear/epilogue.glsl"
#include "linear/finish_group.glsl"
#include "linear/shared_outputs.glsl"

// The part of a row's product that the invocation takes.
float part_of_product(uint row, uint first_quad) {
  uint chunks = push.columns / CHUNK;
  float sum = 0;
  for (uint chunk = gl_LocalInvocationIndex; chunk < chunks; chunk += gl_WorkGroupSize.x) {
    vec4 w[CHUNK / 4];
    unpack_chunk(load_chunk(row * chunks + chunk), w);
    [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
      sum += dot(w[j], push.inputs.at[first_quad + activation_quad(chunk * (CHUNK / 4) + j)]);
    }
  }
  return sum;
}

void main() {
  uint column = gl_WorkGroupID.x;
  uint count = GATHER ? push.step.output_count : push.step.row_count;
  if (column >= count) return;
  uint first_row = gl_WorkGroupID.y * GROUP_ROWS;
  uint first_quad = row_of_column(column, count) * (((push.columns + 1023) & ~1023u) / 4);
  for (uint r = 0; r < GROUP_ROWS; r++) {
    float sum = subgroupAdd(part_of_product(min(first_row + r, push.rows - 1), first_quad));
    if (gl_SubgroupInvocationID == 0) partial_sums[gl_SubgroupID * GROUP_ROWS + r] = sum;
  }
  if (NORM && gl_SubgroupID == 0) {
    float sum = sum_squares(column, count);
    if (gl_SubgroupInvocationID == 0) squares[0] = sum;
  }
  barrier();
  for (uint pair = gl_LocalInvocationIndex; pair < GROUP_ROWS / 2; pair += gl_WorkGroupSize.x) {
    uint row = first_row + 2 * pair;
    if (row >= push.rows) continue;
    vec2 values = pair_values(vec2(row_sum(2 * pair, 0), row_sum(2 * pair + 1, 0)), 0, row);
    finish_pair(pair, 0, row, column, values, prepare_pair(row, column));
  }
  finish_group(first_row, column, 1);
}
