#version 460
// Causal attention for prompts on the matrix units: flash attention, over a paged KV cache.
//
// A workgroup takes a tile of consecutive tokens of one sequence and one query head; a subgroup takes some of the
// tile's queries and holds them, and their outputs, in fragments. Blocks of positions go through shared memory.
// What lane holds which element of a fragment is the driver's secret, so rows are reduced in two steps: fragments
// along a row are joined element by element, and what is left of the row goes through shared memory; a value for each
// row comes back as a fragment loaded with stride 0.
//! needs: GL_KHR_cooperative_matrix
#include "common/types.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SUBGROUPS = 4;
layout(constant_id = 2) const uint HEAD_SIZE = 64;
layout(constant_id = 3) const uint FRAGMENTS = 1;  // fragments of a subgroup along queries
layout(constant_id = 4) const uint BLOCK = 64;     // positions in shared memory, a multiple of N and K
layout(constant_id = 5) const uint M = 16;         // the matrix units' fragments
layout(constant_id = 6) const uint N = 16;
layout(constant_id = 7) const uint K = 16;
layout(constant_id = 8) const bool AHEAD = true;   // the next block is loaded while this one is multiplied
layout(constant_id = 9) const bool HELD = true;    // queries are held in registers, not in shared memory
layout(constant_id = 10) const uint CACHE = CACHE_F16;

layout(push_constant) uniform Push { FlashPush push; };
#include "common/kv.glsl"
#include "common/softcap.glsl"

const uint THREADS = gl_WorkGroupSize.x;
const uint ROWS = FRAGMENTS * M;       // queries of a subgroup
const uint QUERIES = SUBGROUPS * ROWS;
const float MASKED = -3.0e38;
const float LOWEST = -1.0e30;          // where maxima start: above what is masked, below any score
const float LOG2E = 1.4426950408889634;

// Shared memory in quads of 16 bytes; an odd number of them from row to row keeps neighbours in different banks.
const uint OCTETS = HEAD_SIZE / 8;
const uint STRIDE = OCTETS + 1;
const uint WEIGHT_STRIDE = BLOCK / 8 + 1;  // of attention weights, float16
const uint REST_STRIDE = N / 4 + 1;        // of a fragment, float32
const uint VALUES_AT = BLOCK * STRIDE;
const uint SCRATCH_AT = 2 * BLOCK * STRIDE;
const uint SCRATCH_ROW = WEIGHT_STRIDE > REST_STRIDE ? WEIGHT_STRIDE : REST_STRIDE;
const uint LOOP_QUADS = SCRATCH_AT + QUERIES * SCRATCH_ROW;
const uint QUERY_QUADS = QUERIES * STRIDE;
// Queries pass through on their way to registers, or stay behind the rest; outputs pass through at the end.
const uint QUERIES_AT = HELD ? 0 : LOOP_QUADS;
shared uvec4 tile[HELD ? (LOOP_QUADS > QUERY_QUADS ? LOOP_QUADS : QUERY_QUADS) : LOOP_QUADS + QUERY_QUADS];
shared float maxima[QUERIES];
shared float factors[QUERIES];

const uint LOADS = (BLOCK * OCTETS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
uvec4 keys[LOADS];
uvec4 values[LOADS];

void sync_subgroup() {
  subgroupMemoryBarrierShared();
  subgroupBarrier();
}

// An invocation's i-th octet of a block. Those past the block's end repeat its last one: no branch is needed.
uint block_item(uint i) { return min(i * THREADS + gl_LocalInvocationIndex, BLOCK * OCTETS - 1); }

// Issues the loads of the block that starts at `first`; positions from `end` on are the last one once more.
void load_block(uint first, uint end, uint table, uint kv_head) {
  [[unroll]] for (uint i = 0; i < LOADS; i++) {
    uint item = block_item(i);
    // Keys lie as octets across positions, values as positions across octets.
    uint key_position = min(first + item % BLOCK, end - 1);
    uint value_position = min(first + item / OCTETS, end - 1);
    uint key_page = push.block_tables.at[table + key_position / KV_PAGE_TOKENS] * push.kv_head_count + kv_head;
    uint value_page = push.block_tables.at[table + value_position / KV_PAGE_TOKENS] * push.kv_head_count + kv_head;
    keys[i] = key_octet(key_page, item / BLOCK, key_position % KV_PAGE_TOKENS);
    values[i] = value_octet(value_page, value_position % KV_PAGE_TOKENS, item % OCTETS);
  }
}

void store_block() {
  [[unroll]] for (uint i = 0; i < LOADS; i++) {
    uint item = block_item(i);
    tile[item % BLOCK * STRIDE + item / BLOCK] = halves(keys[i]);
    tile[VALUES_AT + item / OCTETS * STRIDE + item % OCTETS] = halves(values[i]);
  }
}

#define ACCUMULATOR coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
#define HALF_ACCUMULATOR coopmat<float16_t, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>

#define QUERY_FRAGMENT coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
QUERY_FRAGMENT queries[FRAGMENTS][HELD ? HEAD_SIZE / K : 1u];
ACCUMULATOR scores[FRAGMENTS][BLOCK / N];
ACCUMULATOR outputs[FRAGMENTS][HEAD_SIZE / N];
ACCUMULATOR sums[FRAGMENTS];  // of weights, what is left of each row

// Fragment `d` along the head of the subgroup's queries, from shared memory.
QUERY_FRAGMENT stored_query(uint f, uint d) {
  QUERY_FRAGMENT query;
  coopMatLoad(
      query, tile, QUERIES_AT + (gl_SubgroupID * ROWS + f * M) * STRIDE + d * K / 8, STRIDE,
      gl_CooperativeMatrixLayoutRowMajor);
  return query;
}

void load_queries(uint first_row, uint count, uint head) {
  for (uint item = gl_LocalInvocationIndex; item < QUERIES * OCTETS; item += THREADS) {
    uint row = first_row + min(item / OCTETS, count - 1);
    uint at = ((row * push.head_count + head) * HEAD_SIZE + item % OCTETS * 8) / 4;
    vec4 low = push.queries.at[at] * (push.scale * LOG2E);
    vec4 high = push.queries.at[at + 1] * (push.scale * LOG2E);
    low = clamp(low, vec4(-65504.0), vec4(65504.0));
    high = clamp(high, vec4(-65504.0), vec4(65504.0));
    tile[QUERIES_AT + item / OCTETS * STRIDE + item % OCTETS] =
        uvec4(packHalf2x16(low.xy), packHalf2x16(low.zw), packHalf2x16(high.xy), packHalf2x16(high.zw));
  }
  barrier();
  if (!HELD) return;
  [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
    [[unroll]] for (uint d = 0; d < HEAD_SIZE / K; d++) queries[f][d] = stored_query(f, d);
  }
}

void score_block() {
  [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
    [[unroll]] for (uint j = 0; j < BLOCK / N; j++) scores[f][j] = ACCUMULATOR(0);
  }
  [[unroll]] for (uint d = 0; d < HEAD_SIZE / K; d++) {
    QUERY_FRAGMENT query[FRAGMENTS];
    [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
      if (HELD) query[f] = queries[f][d];
      else query[f] = stored_query(f, d);
    }
    [[unroll]] for (uint j = 0; j < BLOCK / N; j++) {
      coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> key;
      coopMatLoad(key, tile, j * N * STRIDE + d * K / 8, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
      [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
        scores[f][j] = coopMatMulAdd(query[f], key, scores[f][j]);
      }
    }
  }
  if (push.softcap != 0) {
    float cap = push.softcap * LOG2E;
    [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
      [[unroll]] for (uint j = 0; j < BLOCK / N; j++) {
        [[unroll]] for (uint e = 0; e < scores[f][j].length(); e++) {
          scores[f][j][e] = softcapped(scores[f][j][e], cap);
        }
      }
    }
  }
}

// Where the subgroup's scratch starts.
uint scratch_row(uint row) { return SCRATCH_AT + (gl_SubgroupID * ROWS + row) * SCRATCH_ROW; }

// Puts away scores of positions that a query must not see. Query `q` of the subgroup is at `query_position` + q.
void mask_block(uint block_start, uint query_position) {
  [[unroll]] for (uint j = 0; j < BLOCK / N; j++) {
    for (uint i = gl_SubgroupInvocationID; i < ROWS * (N / 4); i += gl_SubgroupSize) {
      uint query = query_position + i / (N / 4);
      vec4 mask;
      [[unroll]] for (uint e = 0; e < 4; e++) {
        uint position = block_start + j * N + i % (N / 4) * 4 + e;
        bool seen = position <= query && (push.window == 0 || position + push.window > query);
        mask[e] = seen ? 0.0 : MASKED;
      }
      tile[scratch_row(i / (N / 4)) + i % (N / 4)] = floatBitsToUint(mask);
    }
    sync_subgroup();
    [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
      ACCUMULATOR mask;
      coopMatLoad(mask, tile, scratch_row(f * M), SCRATCH_ROW, gl_CooperativeMatrixLayoutRowMajor);
      scores[f][j] += mask;
    }
    sync_subgroup();
  }
}

// Brings maxima, sums and outputs up to date, and leaves the block's weights in the scratch.
void soften_block() {
  [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
    ACCUMULATOR rest = scores[f][0];
    [[unroll]] for (uint j = 1; j < BLOCK / N; j++) {
      [[unroll]] for (uint e = 0; e < rest.length(); e++) rest[e] = max(rest[e], scores[f][j][e]);
    }
    coopMatStore(rest, tile, scratch_row(f * M), SCRATCH_ROW, gl_CooperativeMatrixLayoutRowMajor);
  }
  sync_subgroup();
  float lowest_factor = 1;
  for (uint row = gl_SubgroupInvocationID; row < ROWS; row += gl_SubgroupSize) {
    uint at = gl_SubgroupID * ROWS + row;
    float old_maximum = maxima[at];
    float maximum = old_maximum;
    [[unroll]] for (uint i = 0; i < N / 4; i++) {
      vec4 four = uintBitsToFloat(tile[scratch_row(row) + i]);
      maximum = max(maximum, max(max(four.x, four.y), max(four.z, four.w)));
    }
    float factor = exp2(old_maximum - maximum);
    maxima[at] = maximum;
    factors[at] = factor;
    lowest_factor = min(lowest_factor, factor);
  }
  sync_subgroup();
  if (subgroupMin(lowest_factor) < 1) {
    [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
      ACCUMULATOR factor;
      coopMatLoad(factor, factors, gl_SubgroupID * ROWS + f * M, 0, gl_CooperativeMatrixLayoutColumnMajor);
      [[unroll]] for (uint e = 0; e < factor.length(); e++) sums[f][e] *= factor[e];
      [[unroll]] for (uint d = 0; d < HEAD_SIZE / N; d++) {
        [[unroll]] for (uint e = 0; e < factor.length(); e++) outputs[f][d][e] *= factor[e];
      }
    }
  }
  [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
    ACCUMULATOR maximum;
    coopMatLoad(maximum, maxima, gl_SubgroupID * ROWS + f * M, 0, gl_CooperativeMatrixLayoutColumnMajor);
    [[unroll]] for (uint j = 0; j < BLOCK / N; j++) {
      [[unroll]] for (uint e = 0; e < maximum.length(); e++) {
        float weight = exp2(scores[f][j][e] - maximum[e]);
        scores[f][j][e] = weight;
        sums[f][e] += weight;
      }
      coopMatStore(
          HALF_ACCUMULATOR(scores[f][j]), tile, scratch_row(f * M) + j * N / 8, SCRATCH_ROW,
          gl_CooperativeMatrixLayoutRowMajor);
    }
  }
  sync_subgroup();
}

void weigh_values() {
  [[unroll]] for (uint p = 0; p < BLOCK / K; p++) {
    coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> weights[FRAGMENTS];
    [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
      coopMatLoad(
          weights[f], tile, scratch_row(f * M) + p * K / 8, SCRATCH_ROW, gl_CooperativeMatrixLayoutRowMajor);
    }
    [[unroll]] for (uint d = 0; d < HEAD_SIZE / N; d++) {
      coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> value;
      coopMatLoad(
          value, tile, VALUES_AT + p * K * STRIDE + d * N / 8, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
      [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
        outputs[f][d] = coopMatMulAdd(weights[f], value, outputs[f][d]);
      }
    }
  }
}

// Divides outputs by the sums of weights and puts them into shared memory, a query's octets in a row.
void finish_outputs() {
  [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
    coopMatStore(sums[f], tile, scratch_row(f * M), SCRATCH_ROW, gl_CooperativeMatrixLayoutRowMajor);
  }
  sync_subgroup();
  for (uint row = gl_SubgroupInvocationID; row < ROWS; row += gl_SubgroupSize) {
    vec4 four = vec4(0);
    [[unroll]] for (uint i = 0; i < N / 4; i++) four += uintBitsToFloat(tile[scratch_row(row) + i]);
    factors[gl_SubgroupID * ROWS + row] = 1 / ((four.x + four.y) + (four.z + four.w));
  }
  barrier();
  [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
    ACCUMULATOR factor;
    coopMatLoad(factor, factors, gl_SubgroupID * ROWS + f * M, 0, gl_CooperativeMatrixLayoutColumnMajor);
    [[unroll]] for (uint d = 0; d < HEAD_SIZE / N; d++) {
      [[unroll]] for (uint e = 0; e < factor.length(); e++) outputs[f][d][e] *= factor[e];
      coopMatStore(
          HALF_ACCUMULATOR(outputs[f][d]), tile, (gl_SubgroupID * ROWS + f * M) * STRIDE + d * N / 8, STRIDE,
          gl_CooperativeMatrixLayoutRowMajor);
    }
  }
  barrier();
}

void main() {
  if (gl_WorkGroupID.y >= push.step.tile_count) return;
  // The last tiles of a prompt see most: they go first.
  AttentionTile rows = push.tiles.at[push.step.tile_count - 1 - gl_WorkGroupID.y];
  uint head = gl_WorkGroupID.x;
  uint kv_head = head / (push.head_count / push.kv_head_count);
  uint table = rows.sequence * push.table_stride;
  uint first_position = push.step.rows[rows.first_row].position;
  uint end = first_position + rows.row_count;
  uint begin = push.window == 0 || first_position < push.window ? 0 : first_position - push.window + 1;
  begin -= begin % KV_PAGE_TOKENS;

  load_queries(rows.first_row, rows.row_count, head);
  for (uint i = gl_LocalInvocationIndex; i < QUERIES; i += THREADS) maxima[i] = LOWEST;
  [[unroll]] for (uint f = 0; f < FRAGMENTS; f++) {
    sums[f] = ACCUMULATOR(0);
    [[unroll]] for (uint d = 0; d < HEAD_SIZE / N; d++) outputs[f][d] = ACCUMULATOR(0);
  }
  if (AHEAD) load_block(begin, end, table, kv_head);
  for (uint start = begin; start < end; start += BLOCK) {
    if (!AHEAD) load_block(start, end, table, kv_head);
    barrier();
    store_block();
    barrier();
    if (AHEAD) load_block(min(start + BLOCK, end - 1), end, table, kv_head);
    score_block();
    bool all_seen = start + BLOCK <= first_position + 1 && (push.window == 0 || start + push.window >= end);
    if (!all_seen) mask_block(start, first_position + gl_SubgroupID * ROWS);
    soften_block();
    weigh_values();
  }
  barrier();
  finish_outputs();
  for (uint item = gl_LocalInvocationIndex; item < rows.row_count * OCTETS; item += THREADS) {
    uint at = ((rows.first_row + item / OCTETS) * push.output_stride + head * HEAD_SIZE) / 8 + item % OCTETS;
    push.outputs.at[at] = tile[item / OCTETS * STRIDE + item % OCTETS];
  }
}
