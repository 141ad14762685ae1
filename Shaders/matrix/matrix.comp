#version 460
// outputs = epilogue(weights * inputs) for many tokens at once, on the matrix units.
//
// A workgroup takes a tile of rows and tokens and walks along the inputs STEP of them at a time: weights, made float16
// on the way, and inputs go through shared memory, from where subgroups multiply fragments of the matrix units' size.
// Loads of the next step are issued before the products of this one and stored after them. One step in shared memory
// leaves room for two workgroups on a core, which does more than a second step there: one multiplies while the other
// stores. With SPLIT > 1 several workgroups share the inputs of a tile, and the last one done adds up their sums.
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
layout(constant_id = 8) const uint STEP = 32;            // inputs in shared memory, 32 or more: a multiple of K
layout(constant_id = 9) const uint SPLIT = 1;            // workgroups that share the inputs of a tile
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

// Shared memory in quads of 16 bytes. An odd number of quads from row to row puts eight neighbouring rows into
// different banks.
const uint STEP_QUADS = STEP / 8;
const uint STRIDE = STEP_QUADS + 1;
const uint TILE_QUADS = (TILE_ROWS + TILE_TOKENS) * STRIDE;
const uint FIRST_TOKEN_QUAD = TILE_ROWS * STRIDE;
// At the end each subgroup puts its sums there: N tokens by all its rows, float32.
const uint SUM_STRIDE = ROW_FRAGMENTS * M / 4 + 1;
const uint SUM_QUADS = ROW_SUBGROUPS * TOKEN_SUBGROUPS * N * SUM_STRIDE;
shared uvec4 tile[TILE_QUADS > SUM_QUADS ? TILE_QUADS : SUM_QUADS];
shared uint ticket;

// What an invocation loads in a step.
const uint ROW_CHUNKS = STEP / CHUNK;
const uint WEIGHT_LOADS = (TILE_ROWS * ROW_CHUNKS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
const uint INPUT_LOADS = (TILE_TOKENS * STEP_QUADS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
Chunk weights[WEIGHT_LOADS];
uvec4 inputs[INPUT_LOADS];
uint weight_sources[WEIGHT_LOADS];
uint input_sources[INPUT_LOADS];
// The last of the same row.
uint weight_ends[WEIGHT_LOADS];
uint input_ends[INPUT_LOADS];

// Item i of a tile whose rows have `width` chunks: x is its row, y its chunk. Eight neighbours, which write to shared
// memory together, get rows whose chunks lie in different banks.
uvec2 item_place(uint i, uint width) {
  if (width >= 8 || width == 1) return uvec2(i / width, i % width);
  uint apart = 8 / width;
  uint row = i / width;
  return uvec2((row & ~7u) + row % apart * width + (row & 7u) / apart, i % width);
}

// Where an invocation's i-th loads belong. Those past the tile's end repeat its last one: no branch is needed.
uvec2 weight_place(uint i) {
  return item_place(min(i * THREADS + gl_LocalInvocationIndex, TILE_ROWS * ROW_CHUNKS - 1), ROW_CHUNKS);
}
uvec2 input_place(uint i) {
  return item_place(min(i * THREADS + gl_LocalInvocationIndex, TILE_TOKENS * STEP_QUADS - 1), STEP_QUADS);
}

#include "matrix/halves.glsl"

// Issues the loads of the step that starts at input `first`. Inputs come in 32s: of a larger step, the end may lie
// past the last. There, weights are the row's last ones, and store_step makes the inputs zeros.
void load_step(uint first) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uint index = weight_sources[i] + first / CHUNK;
    if (STEP > 32) index = min(index, weight_ends[i]);
    weights[i] = load_chunk(index);
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uint index = input_sources[i] + first / 8;
    if (STEP > 32) index = min(index, input_ends[i]);
    inputs[i] = push.inputs.at[index];
  }
}

// Puts chunk `index` of a row's step into shared memory; the step starts at quad `at`.
void store_weights(Chunk chunk, uint at, uint index) {
  uint halves[CHUNK / 2];
  unpack_halves(chunk, halves);
#ifdef FORMAT_F32
  // Half a quad: the other half is another chunk's.
  tile[at + index / 2][index % 2 * 2] = halves[0];
  tile[at + index / 2][index % 2 * 2 + 1] = halves[1];
#else
  [[unroll]] for (uint j = 0; j < CHUNK / 8; j++) {
    tile[at + index * (CHUNK / 8) + j] =
        uvec4(halves[4 * j], halves[4 * j + 1], halves[4 * j + 2], halves[4 * j + 3]);
  }
#endif
}

// Stores what was loaded for a step of which `left` inputs exist.
void store_step(uint left) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uvec2 place = weight_place(i);
    store_weights(weights[i], place.x * STRIDE, place.y);
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uvec2 place = input_place(i);
    bool past = STEP > 32 && place.y * 8 >= left;
    tile[FIRST_TOKEN_QUAD + place.x * STRIDE + place.y] = past ? uvec4(0) : inputs[i];
  }
}

#define ACCUMULATOR coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
ACCUMULATOR sums[ROW_FRAGMENTS * TOKEN_FRAGMENTS];

void multiply_step(uint row_quad, uint token_quad) {
  [[unroll]] for (uint k = 0; k < STEP / K; k++) {
    uint at = k * K / 8;
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

// Adds up the sums of the workgroups that share this tile, in a fixed order; true in the last of them to get here.
bool join_splits(uint parts) {
  const uint fragments = ROW_FRAGMENTS * TOKEN_FRAGMENTS;
  uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  const uint split_size = ROW_SUBGROUPS * TOKEN_SUBGROUPS * fragments * M * N;
  uint first = group * SPLIT * split_size + gl_SubgroupID * fragments * M * N;
  [[unroll]] for (uint i = 0; i < fragments; i++) {
    coopMatStore(
        sums[i], push.partials.at, first + gl_WorkGroupID.z * split_size + i * M * N, N,
        gl_CooperativeMatrixLayoutRowMajor);
  }
  memoryBarrierBuffer();
  barrier();
  if (gl_LocalInvocationIndex == 0) {
    ticket = atomicAdd(push.counters.at[group], 1);
    if (ticket == parts - 1) push.counters.at[group] = 0;
  }
  barrier();
  memoryBarrierBuffer();
  if (ticket != parts - 1) return false;
  [[unroll]] for (uint i = 0; i < fragments; i++) sums[i] = ACCUMULATOR(0);
  for (uint part = 0; part < parts; part++) {
    [[unroll]] for (uint i = 0; i < fragments; i++) {
      ACCUMULATOR other;
      coopMatLoad(
          other, push.partials.at, first + part * split_size + i * M * N, N, gl_CooperativeMatrixLayoutRowMajor);
      sums[i] += other;
    }
  }
  return true;
}

#include "matrix/finish.glsl"

void main() {
  uint count = GATHER ? push.step.output_count : push.step.row_count;
  uint first_row = gl_WorkGroupID.x / BAND * TILE_ROWS;
  uint first_token = (gl_WorkGroupID.y * BAND + gl_WorkGroupID.x % BAND) * TILE_TOKENS;
  if (first_token >= count) return;
  uint steps = (push.columns + STEP - 1) / STEP;
  uint split_steps = (steps + SPLIT - 1) / SPLIT;
  uint active_splits = (steps + split_steps - 1) / split_steps;
  if (gl_WorkGroupID.z >= active_splits) return;
  uint begin = gl_WorkGroupID.z * split_steps * STEP;
  uint end = min(begin + split_steps * STEP, push.columns);

  // Rows and tokens past the end are the last one once more: nothing is stored for them.
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uvec2 place = weight_place(i);
    uint row_chunk = min(first_row + place.x, push.rows - 1) * (push.columns / CHUNK);
    weight_sources[i] = row_chunk + place.y;
    weight_ends[i] = row_chunk + push.columns / CHUNK - 1;
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uvec2 place = input_place(i);
    uint token_quad = min(first_token + place.x, count - 1) * (push.input_stride / 8);
    input_sources[i] = token_quad + place.y;
    input_ends[i] = token_quad + push.columns / 8 - 1;
  }
  uint row_quad = gl_SubgroupID / TOKEN_SUBGROUPS * ROW_FRAGMENTS * M * STRIDE;
  uint token_quad = FIRST_TOKEN_QUAD + gl_SubgroupID % TOKEN_SUBGROUPS * TOKEN_FRAGMENTS * N * STRIDE;
  [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS * TOKEN_FRAGMENTS; i++) sums[i] = ACCUMULATOR(0);

  load_step(begin);
  store_step(push.columns - begin);
  barrier();
  for (uint next = begin + STEP; next < end; next += STEP) {
    load_step(next);
    multiply_step(row_quad, token_quad);
    barrier();
    store_step(push.columns - next);
    barrier();
  }
  multiply_step(row_quad, token_quad);
  if (SPLIT > 1 && active_splits > 1 && !join_splits(active_splits)) return;
  barrier();

  finish_tile(
      first_row + gl_SubgroupID / TOKEN_SUBGROUPS * ROW_FRAGMENTS * M,
      first_token + gl_SubgroupID % TOKEN_SUBGROUPS * TOKEN_FRAGMENTS * N, count);
}
