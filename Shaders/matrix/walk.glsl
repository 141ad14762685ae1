// The walk of a workgroup along the inputs of its tile (matrix/tile.glsl). Loads of the next step are issued before the
// products of this one and stored after them. One step in shared memory leaves room for two workgroups on a core, which
// does more than a second step there: one multiplies while the other stores.
//
// The shader that includes this has defined:
// - `begin_sums()`: what is to be done before the first step; the sums are 0 then.
// - `store_weights(chunk, row, index)` puts chunk `index` of a row's step into shared memory.
// - `multiply_step(row, token)` multiplies what is there, for the subgroup whose part of the tile starts at that row and
//   token.
// - `ACCUMULATOR`: the type of a fragment of sums; `sum_fragment(i)` is the i-th, `clear_sums()` sets all to 0, and
//   `add_sums(i, fragment)` adds to one.

// Issues the loads of the step that starts at input `first`. Inputs come in 32s: of a larger step, the end may lie
// past the last. There, weights are the row's last ones, and store_step makes the inputs zeros.
void load_step(uint first) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uint index = weight_sources[i] + first / CHUNK;
    if (STEP > 32) index = min(index, weight_ends[i]);
    weights[i] = load_chunk(index);
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uint index = input_sources[i] + first / QUAD_INPUTS;
    if (STEP > 32) index = min(index, input_ends[i]);
    inputs[i] = push.inputs.at[index];
  }
#ifdef BLOCK_SCALES
  [[unroll]] for (uint i = 0; i < SCALE_LOADS; i++) {
    uint index = scale_sources[i] + first / 32;
    if (STEP > 32) index = min(index, scale_ends[i]);
    scales[i] = push.input_scales.at[index];
  }
#endif
}

// Stores what was loaded for a step of which `left` inputs exist.
void store_step(uint left) {
  [[unroll]] for (uint i = 0; i < WEIGHT_LOADS; i++) {
    uvec2 place = weight_place(i);
    store_weights(weights[i], place.x, place.y);
  }
  [[unroll]] for (uint i = 0; i < INPUT_LOADS; i++) {
    uvec2 place = input_place(i);
    bool past = STEP > 32 && place.y * QUAD_INPUTS >= left;
    store_quad(FIRST_TOKEN_QUAD + place.x * STRIDE, place.y, past ? uvec4(0) : inputs[i]);
  }
#ifdef BLOCK_SCALES
  [[unroll]] for (uint i = 0; i < SCALE_LOADS; i++) {
    uvec2 place = scale_place(i);
    vec2 scale = STEP > 32 && place.y * 32 >= left ? vec2(0) : uintBitsToFloat(scales[i]);
    token_scales[place.y * TILE_TOKENS + place.x] = scale.x;
#ifdef ROW_MINIMA
    token_sums[place.y * TILE_TOKENS + place.x] = scale.y;
#endif
  }
#endif
}

// Adds up the sums of the workgroups that share this tile, in a fixed order; true in the last of them to get here.
bool join_splits(uint parts) {
  const uint fragments = ROW_FRAGMENTS * TOKEN_FRAGMENTS;
  uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  const uint split_size = ROW_SUBGROUPS * TOKEN_SUBGROUPS * fragments * M * N;
  uint first = group * SPLIT * split_size + gl_SubgroupID * fragments * M * N;
  [[unroll]] for (uint i = 0; i < fragments; i++) {
    coopMatStore(
        sum_fragment(i), push.partials.at, first + gl_WorkGroupID.z * split_size + i * M * N, N,
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
  clear_sums();
  for (uint part = 0; part < parts; part++) {
    [[unroll]] for (uint i = 0; i < fragments; i++) {
      ACCUMULATOR other;
      coopMatLoad(
          other, push.partials.at, first + part * split_size + i * M * N, N, gl_CooperativeMatrixLayoutRowMajor);
      add_sums(i, other);
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
    uint token_quad = min(first_token + place.x, count - 1) * (push.input_stride / QUAD_INPUTS);
    input_sources[i] = token_quad + place.y;
    input_ends[i] = token_quad + push.columns / QUAD_INPUTS - 1;
  }
#ifdef BLOCK_SCALES
  [[unroll]] for (uint i = 0; i < SCALE_LOADS; i++) {
    uvec2 place = scale_place(i);
    uint token_block = min(first_token + place.x, count - 1) * (push.input_stride / 32);
    scale_sources[i] = token_block + place.y;
    scale_ends[i] = token_block + push.columns / 32 - 1;
  }
#endif
  uint subgroup_row = gl_SubgroupID / TOKEN_SUBGROUPS * ROW_FRAGMENTS * M;
  uint subgroup_token = gl_SubgroupID % TOKEN_SUBGROUPS * TOKEN_FRAGMENTS * N;
  begin_sums();

  load_step(begin);
  store_step(push.columns - begin);
  barrier();
  for (uint next = begin + STEP; next < end; next += STEP) {
    load_step(next);
    multiply_step(subgroup_row, subgroup_token);
    barrier();
    store_step(push.columns - next);
    barrier();
  }
  multiply_step(subgroup_row, subgroup_token);
  if (SPLIT > 1 && active_splits > 1 && !join_splits(active_splits)) return;
  barrier();

  finish_tile(first_row + subgroup_row, first_token + subgroup_token, count);
}
