// A tile of a matrix product in shared memory: how the work is cut, what the memory holds, and what each invocation
// brings there.
//
// A workgroup takes a tile of rows and tokens and walks along the inputs STEP of them at a time: weights and inputs go
// through shared memory, from where subgroups multiply fragments of the matrix units' size. With SPLIT > 1 several
// workgroups share the inputs of a tile, and the last one done adds up their sums.
//
// The shader that includes this defines INPUT_BYTES, of an input and of a weight in shared memory, and BLOCK_SCALES if
// inputs are blocks of bytes with scales. After this file it defines what matrix/walk.glsl calls, and includes that.
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

const uint THREADS = gl_WorkGroupSize.x;
const uint LANES = THREADS / (ROW_SUBGROUPS * TOKEN_SUBGROUPS);
const uint TILE_ROWS = ROW_SUBGROUPS * ROW_FRAGMENTS * M;
const uint TILE_TOKENS = TOKEN_SUBGROUPS * TOKEN_FRAGMENTS * N;

// Shared memory in quads of 16 bytes. An odd number of quads from row to row puts eight neighbouring rows into
// different banks. Fragments start at a quad: smaller ones (PARTS = 2) have half of it.
const uint QUAD_INPUTS = 16 / INPUT_BYTES;
const uint STEP_QUADS = STEP / QUAD_INPUTS;
const uint PARTS = K < QUAD_INPUTS ? QUAD_INPUTS / K : 1;
const uint FRAGMENT_QUADS = K < QUAD_INPUTS ? 1 : K / QUAD_INPUTS;
const uint STRIDE = STEP_QUADS * PARTS + 1;
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

// Puts quad `index` of a row's step, which starts at quad `at`, into shared memory.
void store_quad(uint at, uint index, uvec4 quad) {
  if (PARTS == 1) {
    tile[at + index] = quad;
  } else {
    tile[at + 2 * index] = uvec4(quad.xy, 0, 0);
    tile[at + 2 * index + 1] = uvec4(quad.zw, 0, 0);
  }
}

#ifdef BLOCK_SCALES
// Scales of the step, [block][row or token], and with minima what they are multiplied by.
const uint STEP_BLOCKS = STEP / 32;
shared float row_scales[STEP_BLOCKS * TILE_ROWS];
shared float token_scales[STEP_BLOCKS * TILE_TOKENS];
#ifdef ROW_MINIMA
shared float row_minima[STEP_BLOCKS * TILE_ROWS];
shared float token_sums[STEP_BLOCKS * TILE_TOKENS];
#endif

const uint SCALE_LOADS = (TILE_TOKENS * STEP_BLOCKS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
uvec2 scales[SCALE_LOADS];
uint scale_sources[SCALE_LOADS];
uint scale_ends[SCALE_LOADS];

// Where an invocation's i-th scale belongs: token and block.
uvec2 scale_place(uint i) {
  uint item = min(i * THREADS + gl_LocalInvocationIndex, TILE_TOKENS * STEP_BLOCKS - 1);
  return uvec2(item / STEP_BLOCKS, item % STEP_BLOCKS);
}
#endif
