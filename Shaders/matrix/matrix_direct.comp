#version 460
// outputs = epilogue(weights * inputs) for some 8 to 64 tokens, on the matrix units, with nothing between memory and
// their fragments: each invocation loads the chunks of weights and of inputs whose elements it holds.
//
// Which elements those are, Vulkan leaves to the device: the host has found out (FragmentProbe). SHARERS invocations
// share a row of a fragment, and have SLOTS of its elements each. A sum of products does not care for their order: so
// each takes a chunk of 16 bytes of its row and of its token, and neighbours the chunks beside it. No workgroup waits
// for a barrier before its end, and weights are unpacked once for all tokens.
// SPLIT subgroups share rows and go through every SPLIT-th part of the inputs; their sums meet in shared memory.
//! formats: f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4
//! needs: GL_KHR_cooperative_matrix
#include FORMAT_FILE
#include "common/types.glsl"
#include "common/bytes.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint ROW_SUBGROUPS = 2;    // subgroups along rows
layout(constant_id = 2) const uint SPLIT = 4;            // subgroups that share rows
layout(constant_id = 3) const uint ROW_FRAGMENTS = 1;    // fragments of a subgroup along rows
layout(constant_id = 4) const uint TOKEN_FRAGMENTS = 2;  // fragments of a subgroup along tokens
layout(constant_id = 5) const uint M = 16;               // a fragment's rows,
layout(constant_id = 6) const uint N = 8;                // tokens
layout(constant_id = 7) const uint K = 16;               // and inputs
layout(constant_id = 8) const uint SHARERS = 4;          // invocations that share a row
layout(constant_id = 9) const uint WEIGHT_PLACES = 0;    // where an invocation's elements belong, four bits each: the
layout(constant_id = 10) const uint INPUT_PLACES = 0;    // row or token of those it has, times SLOTS, and the slot
layout(constant_id = 11) const uint EPILOGUE = EPILOGUE_STORE;
layout(constant_id = 12) const bool BIAS = false;
layout(constant_id = 13) const bool GATHER = false;      // one column for each of the step's outputs, not its rows
layout(constant_id = 14) const uint ACTIVATION = ACTIVATION_SILU;
layout(constant_id = 15) const uint UNROLL = 1;          // chunks of a row whose loads are under way at once
layout(constant_id = 16) const bool RAGGED = false;      // whether rows end within what is loaded at once
layout(constant_id = 17) const uint ROUND = 1;           // fragments along tokens that are finished at once

layout(push_constant) uniform Push { MatrixPush push; };

#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"
#include "matrix/halves.glsl"

const uint SUBGROUPS = ROW_SUBGROUPS * SPLIT;
const uint LANES = gl_WorkGroupSize.x / SUBGROUPS;
const uint SLOTS = K / SHARERS;
// Rows and tokens of a fragment that an invocation has elements of, and how far apart they are.
const uint FRAGMENT_ROWS = M * SHARERS / LANES;
const uint FRAGMENT_TOKENS = N * SHARERS / LANES;
const uint APART = LANES / SHARERS;
const uint LANE_ROWS = ROW_FRAGMENTS * FRAGMENT_ROWS;
const uint LANE_TOKENS = TOKEN_FRAGMENTS * FRAGMENT_TOKENS;
const uint TILE_ROWS = ROW_SUBGROUPS * ROW_FRAGMENTS * M;
const uint TILE_TOKENS = TOKEN_FRAGMENTS * N;

// At the end each subgroup puts its sums here: ROUND * N tokens by all its rows, float32.
const uint ROW_QUADS = ROW_FRAGMENTS * M / 4;
const uint SUM_STRIDE = ROW_QUADS + 1;
shared uvec4 tile[SUBGROUPS * ROUND * N * SUM_STRIDE];

#define ACCUMULATOR coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
ACCUMULATOR sums[ROW_FRAGMENTS * TOKEN_FRAGMENTS];
uint weight_rows[LANE_ROWS];     // first chunk of each row
uint token_quads[LANE_TOKENS];   // first quad of each token
Chunk chunks[UNROLL * LANE_ROWS];

void load_chunks(uint chunk, uint chunks_per_row) {
  [[unroll]] for (uint u = 0; u < UNROLL; u++) {
    uint index = chunk + u * SHARERS;
    if (RAGGED) index = min(index, chunks_per_row - 1);
    [[unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
      chunks[u * LANE_ROWS + r] = load_chunk(weight_rows[r] + index);
    }
  }
}

float16_t half_of(uint word, uint which) { return unpackFloat2x16(word)[which]; }

// The products of one chunk of each row, of which there are none past the row's end.
void multiply_chunk(Chunk row_chunks[LANE_ROWS], uint chunk, uint chunks_per_row) {
  bool past = RAGGED && chunk >= chunks_per_row;
  uint input_chunk = (RAGGED ? min(chunk, chunks_per_row - 1) : chunk) * (CHUNK / 8);
  uint words[LANE_ROWS][CHUNK / 2];
  [[unroll]] for (uint r = 0; r < LANE_ROWS; r++) unpack_halves(row_chunks[r], words[r]);
  [[unroll]] for (uint q = 0; q < CHUNK / 8; q++) {
    uvec4 inputs[LANE_TOKENS];
    [[unroll]] for (uint c = 0; c < LANE_TOKENS; c++) {
      inputs[c] = push.inputs.at[token_quads[c] + input_chunk + q];
      if (RAGGED && past) inputs[c] = uvec4(0);
    }
    [[unroll]] for (uint m = 0; m < 8 / SLOTS; m++) {
      coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[ROW_FRAGMENTS];
      [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
        [[unroll]] for (uint e = 0; e < M * K / LANES; e++) {
          uint place = WEIGHT_PLACES >> 4 * e & 15u;
          uint input_index = q * 8 + m * SLOTS + place % SLOTS;
          a[i][e] = half_of(words[i * FRAGMENT_ROWS + place / SLOTS][input_index / 2], input_index % 2);
        }
      }
      [[unroll]] for (uint j = 0; j < TOKEN_FRAGMENTS; j++) {
        coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
        [[unroll]] for (uint e = 0; e < K * N / LANES; e++) {
          uint place = INPUT_PLACES >> 4 * e & 15u;
          uint input_index = m * SLOTS + place % SLOTS;
          b[e] = half_of(inputs[j * FRAGMENT_TOKENS + place / SLOTS][input_index / 2], input_index % 2);
        }
        [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
          sums[i * TOKEN_FRAGMENTS + j] = coopMatMulAdd(a[i], b, sums[i * TOKEN_FRAGMENTS + j]);
        }
      }
    }
  }
}

#include "matrix/finish_quad.glsl"

// Adds up what the subgroups that share rows have, in a fixed order, and finishes it.
void finish_tile(uint first_row, uint first_token, uint count) {
  for (uint first = 0; first < TOKEN_FRAGMENTS; first += ROUND) {
    // Fragments stay in registers only if their indices are constants.
    [[unroll]] for (uint j = 0; j < TOKEN_FRAGMENTS; j++) {
      if (j / ROUND * ROUND == first) {
        [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
          coopMatStore(
              sums[i * TOKEN_FRAGMENTS + j], tile,
              (gl_SubgroupID * ROUND + j % ROUND) * N * SUM_STRIDE + i * M / 4, SUM_STRIDE,
              gl_CooperativeMatrixLayoutColumnMajor);
        }
      }
    }
    barrier();
    const uint tokens = ROUND * N;
    for (uint item = gl_LocalInvocationIndex; item < ROW_SUBGROUPS * tokens * ROW_QUADS;
         item += gl_WorkGroupSize.x) {
      uint row_subgroup = item / (tokens * ROW_QUADS);
      uint in_round = item / ROW_QUADS % tokens;
      uint quad = item % ROW_QUADS;
      uint row = first_row + row_subgroup * ROW_FRAGMENTS * M + 4 * quad;
      uint token = first_token + first * N + in_round;
      if (first * N + in_round >= TILE_TOKENS || row >= push.rows || token >= count) continue;
      vec4 residual = vec4(0);
      if (EPILOGUE == EPILOGUE_RESIDUAL) residual = Floats4Out(push.outputs).at[residual_quad(row, token)];
      vec4 sum = vec4(0);
      [[unroll]] for (uint part = 0; part < SPLIT; part++) {
        uint at = ((row_subgroup * SPLIT + part) * tokens + in_round) * SUM_STRIDE + quad;
        sum += uintBitsToFloat(tile[at]);
      }
      finish_quad(row, token, sum, residual);
    }
    barrier();
  }
}

void main() {
  uint count = GATHER ? push.step.output_count : push.step.row_count;
  uint first_row = gl_WorkGroupID.x * TILE_ROWS;
  uint first_token = gl_WorkGroupID.y * TILE_TOKENS;
  if (first_token >= count) return;
  uint chunks_per_row = push.columns / CHUNK;
  uint part = gl_SubgroupID % SPLIT;
  uint sharer = gl_SubgroupInvocationID % SHARERS;
  uint member = gl_SubgroupInvocationID / SHARERS;

  // Rows and tokens past the end are the last one once more: nothing is stored for them.
  uint subgroup_row = first_row + gl_SubgroupID / SPLIT * ROW_FRAGMENTS * M + member;
  [[unroll]] for (uint r = 0; r < LANE_ROWS; r++) {
    weight_rows[r] = min(subgroup_row + r * APART, push.rows - 1) * chunks_per_row;
  }
  [[unroll]] for (uint c = 0; c < LANE_TOKENS; c++) {
    token_quads[c] = min(first_token + member + c * APART, count - 1) * (push.input_stride / 8);
  }
  [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS * TOKEN_FRAGMENTS; i++) sums[i] = ACCUMULATOR(0);

  // Chunks that a subgroup loads at once, and those of all subgroups that share its rows.
  const uint at_once = SHARERS * UNROLL;
  const uint stride = at_once * SPLIT;
  if (part * at_once < chunks_per_row) load_chunks(part * at_once + sharer, chunks_per_row);
  for (uint first = part * at_once; first < chunks_per_row; first += stride) {
    Chunk current[UNROLL * LANE_ROWS];
    [[unroll]] for (uint i = 0; i < UNROLL * LANE_ROWS; i++) current[i] = chunks[i];
    uint next = first + stride;
    if (next < chunks_per_row) load_chunks(next + sharer, chunks_per_row);
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
      Chunk row_chunks[LANE_ROWS];
      [[unroll]] for (uint r = 0; r < LANE_ROWS; r++) row_chunks[r] = current[u * LANE_ROWS + r];
      multiply_chunk(row_chunks, first + sharer + u * SHARERS, chunks_per_row);
    }
  }
  finish_tile(first_row, first_token, count);
}
