#version 460
// outputs = epilogue(weights * inputs) for many tokens at once, on the matrix units.
//
// A workgroup takes a tile of rows and tokens and walks along the inputs STEP of them at a time: weights, made float16
// on the way, and inputs go through shared memory, from where subgroups multiply fragments of the matrix units' size.
// Loads of the next step are issued before the products of this one and stored after them.
//! formats: all
//! needs: GL_KHR_cooperative_matrix
#include FORMAT_FILE
#include "common/types.glsl"
#include "common/bytes.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint ROW_SUBGROUPS = 2;    // subgroups along rows
layout(constant_id = 2) const uint TOKEN_SUBGROUPS = 2;  // subgroups along tokens
layout(constant_id = 3) const uint ROW_FRAGMENTS = 4;    // fragments of a subgroup along rows
layout(constant_id = 4) const uint TOKEN_FRAGMENTS = 4;  // fragments of a subgroup along tokens
layout(constant_id = 5) const uint M = 16;               // a fragment's rows,
layout(constant_id = 6) const uint N = 16;               // tokens
layout(constant_id = 7) const uint K = 16;               // and inputs
layout(constant_id = 8) const uint STEP = 32;            // inputs in shared memory: a multiple of 16 and of CHUNK
layout(constant_id = 9) const uint STAGES = 2;           // steps in shared memory, 1 or 2
layout(constant_id = 10) const uint BAND = 8;            // token tiles that neighbouring workgroups share weights over
layout(constant_id = 11) const uint EPILOGUE = EPILOGUE_STORE;
layout(constant_id = 12) const bool BIAS = false;
layout(constant_id = 13) const bool GATHER = false;      // one column for each of the step's outputs, not its rows
layout(constant_id = 14) const uint ACTIVATION = ACTIVATION_SILU;

layout(push_constant) uniform Push { MatrixPush push; };

#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"

const uint THREADS = gl_WorkGroupSize.x;
const uint TILE_ROWS = ROW_SUBGROUPS * ROW_FRAGMENTS * M;
const uint TILE_TOKENS = TOKEN_SUBGROUPS * TOKEN_FRAGMENTS * N;

// Shared memory in quads of 16 bytes. A row holds all stages and a quad more: an odd number of quads from row to row
// puts eight neighbouring rows into different banks.
const uint STEP_QUADS = STEP / 8;
const uint STRIDE = STAGES * STEP_QUADS + 1;
const uint TILE_QUADS = (TILE_ROWS + TILE_TOKENS) * STRIDE;
const uint FIRST_TOKEN_QUAD = TILE_ROWS * STRIDE;
// At the end each subgroup puts its sums there: N tokens by all its rows, float32.
const uint SUM_STRIDE = ROW_FRAGMENTS * M / 4 + 1;
const uint SUM_QUADS = ROW_SUBGROUPS * TOKEN_SUBGROUPS * N * SUM_STRIDE;
shared uvec4 tile[TILE_QUADS > SUM_QUADS ? TILE_QUADS : SUM_QUADS];

// What an invocation loads in a step.
const uint ROW_CHUNKS = STEP / CHUNK;
const uint WEIGHT_LOADS = (TILE_ROWS * ROW_CHUNKS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
const uint INPUT_LOADS = (TILE_TOKENS * STEP_QUADS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
Chunk weights[WEIGHT_LOADS];
uvec4 inputs[INPUT_LOADS];
uint weight_sources[WEIGHT_LOADS];
uint input_sources[INPUT_LOADS];

// Item i of a tile whose rows have `width` chunks: x is its row, y its chunk. Eight neighbours, which write to shared
// memory together, get rows whose chunks lie in different banks.
uvec2 item_place(uint i, uint width) {
  if (width >= 8 || width == 1) return uvec2(i / width, i % width);
  uint apart = 8 / width;
  uint row = i / width;
  return uvec2((row & ~7u) + row % apart * width + (row & 7u) / apart, i % width);
}

uint to_halves(vec2 pair) {
#if defined(FORMAT_F32) || defined(FORMAT_BF16)
  // Only these hold weights that float16 does not.
  pair = clamp(pair, vec2(-65504.0), vec2(65504.0));
#endif
  return packHalf2x16(pair);
}

// Issues the loads of the step that starts at input `first`.
void load_step(uint first) {
  // Inputs come in 32s: where a step has more, half of the last may lie past the end. Its products are with zeros.
  uint left = push.columns - first;
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    bool past = STEP > 32 && item_place(i * THREADS + gl_LocalInvocationIndex, ROW_CHUNKS).y * CHUNK >= left;
    weights[i] = load_chunk(weight_sources[i] + first / CHUNK - (past ? 32 / CHUNK : 0));
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    bool past = STEP > 32 && item_place(i * THREADS + gl_LocalInvocationIndex, STEP_QUADS).y * 8 >= left;
    inputs[i] = push.inputs.at[input_sources[i] + first / 8 - (past ? 4 : 0)];
    if (past) inputs[i] = uvec4(0);
  }
}

// Puts chunk `index` of a row's step into shared memory; the step starts at quad `at`.
void store_weights(Chunk chunk, uint at, uint index) {
#ifdef FORMAT_F16
  tile[at + index] = chunk.halves;
#else
  vec4 w[CHUNK / 4];
  unpack_chunk(chunk, w);
#ifdef FORMAT_F32
  // Half a quad: the other half is another chunk's.
  tile[at + index / 2][index % 2 * 2] = to_halves(w[0].xy);
  tile[at + index / 2][index % 2 * 2 + 1] = to_halves(w[0].zw);
#else
  [[unroll]] for (uint j = 0; j < CHUNK / 8; j++) {
    tile[at + index * (CHUNK / 8) + j] = uvec4(
        to_halves(w[2 * j].xy), to_halves(w[2 * j].zw), to_halves(w[2 * j + 1].xy), to_halves(w[2 * j + 1].zw));
  }
#endif
#endif
}

void store_step(uint stage) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uint item = i * THREADS + gl_LocalInvocationIndex;
    if (TILE_ROWS * ROW_CHUNKS % THREADS == 0 || item < TILE_ROWS * ROW_CHUNKS) {
      uvec2 place = item_place(item, ROW_CHUNKS);
      store_weights(weights[i], place.x * STRIDE + stage * STEP_QUADS, place.y);
    }
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uint item = i * THREADS + gl_LocalInvocationIndex;
    if (TILE_TOKENS * STEP_QUADS % THREADS == 0 || item < TILE_TOKENS * STEP_QUADS) {
      uvec2 place = item_place(item, STEP_QUADS);
      tile[FIRST_TOKEN_QUAD + place.x * STRIDE + stage * STEP_QUADS + place.y] = inputs[i];
    }
  }
}

coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> sums[ROW_FRAGMENTS * TOKEN_FRAGMENTS];

void multiply_step(uint stage, uint row_quad, uint token_quad) {
  [[unroll]] for (uint k = 0; k < STEP / K; k++) {
    uint at = stage * STEP_QUADS + k * K / 8;
    coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[ROW_FRAGMENTS];
    [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
      coopMatLoad(a[i], tile, row_quad + i * M * STRIDE + at, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
    }
    [[unroll]] for (uint j = 0; j < TOKEN_FRAGMENTS; j++) {
      coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
      coopMatLoad(b, tile, token_quad + j * N * STRIDE + at, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
      [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
        sums[i * TOKEN_FRAGMENTS + j] = coopMatMulAdd(a[i], b, sums[i * TOKEN_FRAGMENTS + j]);
      }
    }
  }
}

#include "matrix/finish.glsl"

void main() {
  uint count = GATHER ? push.step.output_count : push.step.row_count;
  uint first_row = gl_WorkGroupID.x / BAND * TILE_ROWS;
  uint first_token = (gl_WorkGroupID.y * BAND + gl_WorkGroupID.x % BAND) * TILE_TOKENS;
  if (first_token >= count) return;

  // Rows and tokens past the end are the last one once more: nothing is stored for them.
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uvec2 place = item_place(i * THREADS + gl_LocalInvocationIndex, ROW_CHUNKS);
    weight_sources[i] = min(first_row + place.x, push.rows - 1) * (push.columns / CHUNK) + place.y;
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uvec2 place = item_place(i * THREADS + gl_LocalInvocationIndex, STEP_QUADS);
    input_sources[i] = min(first_token + place.x, count - 1) * (push.input_stride / 8) + place.y;
  }
  uint row_quad = gl_SubgroupID / TOKEN_SUBGROUPS * ROW_FRAGMENTS * M * STRIDE;
  uint token_quad = FIRST_TOKEN_QUAD + gl_SubgroupID % TOKEN_SUBGROUPS * TOKEN_FRAGMENTS * N * STRIDE;
  [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS * TOKEN_FRAGMENTS; i++) {
    sums[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0);
  }

  load_step(0);
  store_step(0);
  barrier();
  uint stage = 0;
  for (uint next = STEP; next < push.columns; next += STEP) {
    load_step(next);
    multiply_step(stage, row_quad, token_quad);
    if (STAGES == 1) barrier();
    stage = STAGES == 1 ? 0 : 1 - stage;
    store_step(stage);
    barrier();
  }
  multiply_step(stage, row_quad, token_quad);
  barrier();

  uint subgroup_row = first_row + gl_SubgroupID / TOKEN_SUBGROUPS * ROW_FRAGMENTS * M;
  uint subgroup_token = first_token + gl_SubgroupID % TOKEN_SUBGROUPS * TOKEN_FRAGMENTS * N;
  uint sum_quad = gl_SubgroupID * N * SUM_STRIDE;
  [[unroll]] for (uint j = 0; j < TOKEN_FRAGMENTS; j++) {
    [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
      coopMatStore(
          sums[i * TOKEN_FRAGMENTS + j], tile, sum_quad + i * M / 4, SUM_STRIDE,
          gl_CooperativeMatrixLayoutColumnMajor);
    }
    barrier();
    const uint row_quads = ROW_FRAGMENTS * M / 4;
    for (uint item = gl_SubgroupInvocationID; item < N * row_quads; item += gl_SubgroupSize) {
      uint row = subgroup_row + item % row_quads * 4;
      uint token = subgroup_token + j * N + item / row_quads;
      if (row >= push.rows || token >= count) continue;
      finish_quad(row, token, uintBitsToFloat(tile[sum_quad + item / row_quads * SUM_STRIDE + item % row_quads]));
    }
    barrier();
  }
}
