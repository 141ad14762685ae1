#version 460
// Causal attention over a paged KV cache, in one pass (flash attention with an online softmax).
//
// A workgroup takes a tile of consecutive tokens of one sequence and the query heads of one kv head. It walks over
// the cache one position per invocation: first each invocation scores its position against every query, then the
// softmax is brought up to date, then invocations are dealt out over (octet of value elements, phase of positions).
// With SPLITS > 1 several workgroups share the positions, and the last one done joins their results.
#include "common/types.glsl"
#include "common/blocks.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint HEAD_SIZE = 64;
layout(constant_id = 2) const uint GROUP = 1;      // query heads of one kv head that a workgroup takes
layout(constant_id = 3) const uint TILE_ROWS = 1;  // most tokens in a tile
layout(constant_id = 4) const uint SPLITS = 1;
layout(constant_id = 5) const uint NEXT = NEXT_FLOATS;
layout(constant_id = 6) const uint CACHE = CACHE_F16;

layout(push_constant) uniform Push { AttentionPush push; };
#include "common/kv.glsl"
#include "common/softcap.glsl"
#include "attention/head_group.glsl"

const uint THREADS = gl_WorkGroupSize.x;
const uint QUERIES = GROUP * TILE_ROWS;
const uint OCTETS = HEAD_SIZE / 8;
const uint PHASES = THREADS / OCTETS;
const uint PARTIAL = HEAD_SIZE + 2;  // a split's sums, maximum and weight
const float MASKED = -3.0e38;

shared float queries[QUERIES * HEAD_SIZE];
shared float scores[(QUERIES > 8 ? QUERIES : 8u) * gl_WorkGroupSize.x];
shared float maxima[QUERIES];
shared float weights[QUERIES];
shared float rescale[QUERIES];
shared uint ticket;

// The output vector of a head, as the next product wants it; `scores` holds it where that is blocks of bytes.
void store_output(uint row, uint head, uint d, float value) {
  if (NEXT == NEXT_FLOATS) {
    push.outputs.at[row * push.output_width + activation_index(head * HEAD_SIZE + d)] = floatBitsToUint(value);
  } else {
    scores[d] = value;
  }
}

float block_value(uint place, uint i) { return scores[place * 32 + i]; }

void store_output_blocks(uint row, uint head) {
  if (NEXT != NEXT_BYTES) return;
  barrier();
  for (uint block = gl_SubgroupID; block < HEAD_SIZE / 32; block += gl_NumSubgroups) {
    store_block(
        push.outputs, push.output_scales, row, push.output_width, head * (HEAD_SIZE / 32) + block, block);
  }
}

void main() {
  uint thread = gl_LocalInvocationIndex;
  if (gl_WorkGroupID.x >= push.step.tile_count) return;
  AttentionTile tile = push.tiles.at[gl_WorkGroupID.x];
  HeadGroup heads = head_group();

  uint first_position = tile.first_position;
  uint end = first_position + tile.row_count;
  uint begin = push.window == 0 || first_position < push.window ? 0 : first_position - push.window + 1;
  begin -= begin % KV_PAGE_TOKENS;
  uint blocks = (end - begin + THREADS - 1) / THREADS;
  uint split_blocks = (blocks + SPLITS - 1) / SPLITS;
  uint active_splits = (blocks + split_blocks - 1) / split_blocks;
  if (gl_WorkGroupID.z >= active_splits) return;
  uint first_block = gl_WorkGroupID.z * split_blocks;
  uint last_block = min(first_block + split_blocks, blocks);

  // Query q is row q / GROUP of the tile and head q % GROUP of the group.
  for (uint i = thread; i < QUERIES * HEAD_SIZE; i += THREADS) {
    uint q = i / HEAD_SIZE;
    bool exists = q / GROUP < tile.row_count && q % GROUP < heads.count;
    uint row = tile.first_row + q / GROUP;
    uint head = heads.first + q % GROUP;
    queries[i] = exists
        ? push.queries.at[(row * push.head_count + head) * HEAD_SIZE + i % HEAD_SIZE] * push.scale : 0.0;
  }
  for (uint q = thread; q < QUERIES; q += THREADS) {
    maxima[q] = MASKED;
    weights[q] = 0;
  }
  uint octet = thread % OCTETS;
  uint phase = thread / OCTETS;
  vec4 low[QUERIES];
  vec4 high[QUERIES];
  [[unroll]] for (uint q = 0; q < QUERIES; q++) low[q] = high[q] = vec4(0);
  uint table = tile.sequence * push.table_stride;
  barrier();

  for (uint block = first_block; block < last_block; block++) {
    uint block_start = begin + block * THREADS;
    uint position = block_start + thread;
    float score[QUERIES];
    [[unroll]] for (uint q = 0; q < QUERIES; q++) score[q] = 0;
    {
      uint readable = min(position, end - 1);
      uint page = push.block_tables.at[table + readable / KV_PAGE_TOKENS];
      for (uint d = 0; d < OCTETS; d++) {
        uvec4 packed = key_octet(page * push.kv_head_count + heads.kv_head, d, readable % KV_PAGE_TOKENS);
        vec4 key_low = low_half(packed);
        vec4 key_high = high_half(packed);
        [[unroll]] for (uint q = 0; q < QUERIES; q++) {
          uint at = q * HEAD_SIZE + d * 8;
          score[q] += dot(key_low, vec4(queries[at], queries[at + 1], queries[at + 2], queries[at + 3]))
              + dot(key_high, vec4(queries[at + 4], queries[at + 5], queries[at + 6], queries[at + 7]));
        }
      }
    }
    [[unroll]] for (uint q = 0; q < QUERIES; q++) {
      uint query_position = first_position + q / GROUP;
      bool seen = q / GROUP < tile.row_count && position <= query_position
          && (push.window == 0 || position + push.window > query_position);
      if (push.softcap != 0) score[q] = softcapped(score[q], push.softcap);
      scores[q * THREADS + thread] = seen ? score[q] : MASKED;
    }
    barrier();
    for (uint q = gl_SubgroupID; q < QUERIES; q += gl_NumSubgroups) {
      float block_maximum = MASKED;
      for (uint i = gl_SubgroupInvocationID; i < THREADS; i += gl_SubgroupSize) {
        block_maximum = max(block_maximum, scores[q * THREADS + i]);
      }
      float old_maximum = maxima[q];
      float new_maximum = max(old_maximum, subgroupMax(block_maximum));
      float weight = 0;
      for (uint i = gl_SubgroupInvocationID; i < THREADS; i += gl_SubgroupSize) {
        float s = scores[q * THREADS + i];
        float p = s > -1.0e38 ? exp(s - new_maximum) : 0.0;
        scores[q * THREADS + i] = p;
        weight += p;
      }
      weight = subgroupAdd(weight);
      float factor = old_maximum > -1.0e38 ? exp(old_maximum - new_maximum) : 0.0;
      // Every lane has read the old maximum: what the first lane writes depends on all of them.
      if (gl_SubgroupInvocationID == 0) {
        rescale[q] = factor;
        maxima[q] = new_maximum;
        weights[q] = weights[q] * factor + weight;
      }
    }
    barrier();
    [[unroll]] for (uint q = 0; q < QUERIES; q++) {
      low[q] *= rescale[q];
      high[q] *= rescale[q];
    }
    if (phase < PHASES) {
      uint positions = min(THREADS, end - block_start);
      for (uint i = phase; i < positions; i += PHASES) {
        uint value_position = block_start + i;
        uint page = push.block_tables.at[table + value_position / KV_PAGE_TOKENS];
        uvec4 packed = value_octet(page * push.kv_head_count + heads.kv_head, value_position % KV_PAGE_TOKENS, octet);
        vec4 value_low = low_half(packed);
        vec4 value_high = high_half(packed);
        [[unroll]] for (uint q = 0; q < QUERIES; q++) {
          float p = scores[q * THREADS + i];
          low[q] = fma(vec4(p), value_low, low[q]);
          high[q] = fma(vec4(p), value_high, high[q]);
        }
      }
    }
    barrier();
  }

  // Join the phases, one query after another, through shared memory.
  [[unroll]] for (uint q = 0; q < QUERIES; q++) {
    if (phase < PHASES) {
      uint at = phase * HEAD_SIZE + octet * 8;
      [[unroll]] for (uint i = 0; i < 4; i++) {
        scores[at + i] = low[q][i];
        scores[at + 4 + i] = high[q][i];
      }
    }
    barrier();
    uint row = tile.first_row + q / GROUP;
    uint head = heads.first + q % GROUP;
    bool exists = q / GROUP < tile.row_count && q % GROUP < heads.count;
    if (exists) {
      // Every invocation has read what phases left before one stores the head over it.
      float sums[(HEAD_SIZE + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x];
      [[unroll]] for (uint i = 0; i < sums.length(); i++) {
        uint d = thread + i * THREADS;
        sums[i] = 0;
        if (d < HEAD_SIZE) {
          for (uint p = 0; p < PHASES; p++) sums[i] += scores[p * HEAD_SIZE + d];
        }
      }
      barrier();
      [[unroll]] for (uint i = 0; i < sums.length(); i++) {
        uint d = thread + i * THREADS;
        if (d >= HEAD_SIZE) continue;
        if (active_splits == 1) {
          store_output(row, head, d, sums[i] / weights[q]);
        } else {
          push.partials.at[((row * push.head_count + head) * SPLITS + gl_WorkGroupID.z) * PARTIAL + d] = sums[i];
        }
      }
      if (active_splits == 1) {
        store_output_blocks(row, head);
      } else if (thread < 2) {
        push.partials.at[((row * push.head_count + head) * SPLITS + gl_WorkGroupID.z) * PARTIAL + HEAD_SIZE + thread] =
            thread == 0 ? maxima[q] : weights[q];
      }
    }
    barrier();
  }
  if (active_splits == 1) return;

  memoryBarrierBuffer();
  barrier();
  if (thread == 0) {
    uint counter = gl_WorkGroupID.x * gl_NumWorkGroups.y + gl_WorkGroupID.y;
    ticket = atomicAdd(push.counters.at[counter], 1);
    if (ticket == active_splits - 1) push.counters.at[counter] = 0;
  }
  barrier();
  memoryBarrierBuffer();
  if (ticket != active_splits - 1) return;
  for (uint q = 0; q < QUERIES; q++) {
    if (q / GROUP >= tile.row_count || q % GROUP >= heads.count) continue;
    uint row = tile.first_row + q / GROUP;
    uint head = heads.first + q % GROUP;
    uint base = (row * push.head_count + head) * SPLITS * PARTIAL;
    float maximum = MASKED;
    for (uint s = 0; s < active_splits; s++) {
      maximum = max(maximum, push.partials.at[base + s * PARTIAL + HEAD_SIZE]);
    }
    for (uint d = thread; d < HEAD_SIZE; d += THREADS) {
      float sum = 0;
      float weight = 0;
      for (uint s = 0; s < active_splits; s++) {
        float split_maximum = push.partials.at[base + s * PARTIAL + HEAD_SIZE];
        float factor = split_maximum > -1.0e38 ? exp(split_maximum - maximum) : 0.0;
        sum = fma(factor, push.partials.at[base + s * PARTIAL + d], sum);
        weight = fma(factor, push.partials.at[base + s * PARTIAL + HEAD_SIZE + 1], weight);
      }
      store_output(row, head, d, sum / weight);
    }
    store_output_blocks(row, head);
    barrier();
  }
}
