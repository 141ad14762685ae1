#version 460
// Causal attention of one token over a paged KV cache, at the speed of memory.
//
// A workgroup takes one token and the query heads of one kv head. Its subgroups walk over the cache on their own, some
// positions a round, each with a running softmax in registers: no barrier until the end. For the scores KEY_LANES lanes
// share the key octets of a position (those of neighbouring positions are contiguous); for the sums lanes are octets of
// value elements. With SPLITS > 1 several workgroups share the positions, and the last one done joins their results.
#extension GL_KHR_shader_subgroup_shuffle : require
#define CHAINED
#include "common/types.glsl"
#include "common/blocks.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SUBGROUPS = 8;
layout(constant_id = 2) const uint SUBGROUP_SIZE = 32;
layout(constant_id = 3) const uint HEAD_SIZE = 64;
layout(constant_id = 4) const uint GROUP = 1;  // query heads of one kv head that a workgroup takes
layout(constant_id = 5) const uint SPLITS = 1;
layout(constant_id = 6) const uint NEXT = NEXT_FLOATS;
layout(constant_id = 7) const uint PARALLEL = 1;  // positions whose values a subgroup takes at a time
layout(constant_id = 8) const uint BATCH = 2;     // key octets whose loads are under way at once
layout(constant_id = 9) const uint VALUE_BATCH = 4;  // values of positions, likewise
layout(constant_id = 10) const bool CHAIN = false;
layout(constant_id = 11) const uint CACHE = CACHE_F16;
layout(constant_id = 12) const uint KEY_LANES = 1;     // lanes that share the keys of a position, a power of two
layout(constant_id = 13) const uint LEAST_ROUNDS = 1;  // that a split has before there is another
// Whether a round's loads start in the round before. Wants batches that are a lane's whole share.
layout(constant_id = 14) const bool AHEAD = false;
// Whether keys and values of other positions are loaded before the stage before is done: in steps of one token.
layout(constant_id = 15) const bool EARLY = false;

layout(push_constant) uniform Push { AttentionPush push; };
#include "common/chain.glsl"
#include "common/kv.glsl"
#include "common/softcap.glsl"
#include "attention/head_group.glsl"

const uint OCTETS = HEAD_SIZE / 8;
const uint POSITIONS = SUBGROUP_SIZE / KEY_LANES;  // of a round
const uint KEY_OCTETS = OCTETS / KEY_LANES;        // of a lane
const uint OWN = (OCTETS + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE;  // octets of value elements of a lane
const uint PARTIAL = HEAD_SIZE + 2;  // a split's sums, maximum and weight
const float MASKED = -3.0e38;
const uint OUTPUTS = GROUP * HEAD_SIZE;
const uint EACH = (OUTPUTS + SUBGROUPS * SUBGROUP_SIZE - 1) / (SUBGROUPS * SUBGROUP_SIZE);  // of an invocation
// Splits whose sums are loaded at once, as far as registers go.
const uint MOST_JOINED = EACH <= 2 ? 16 : EACH <= 16 ? 32 / EACH : 2;
const uint JOINED = SPLITS < MOST_JOINED ? SPLITS : MOST_JOINED;

shared vec4 queries[GROUP * HEAD_SIZE / 4];
// Sums of every subgroup, then maximum and weight of every split.
shared float sums[SUBGROUPS * HEAD_SIZE > 2 * SPLITS ? SUBGROUPS * GROUP * HEAD_SIZE : 2 * SPLITS * GROUP];
shared vec2 state[SUBGROUPS * GROUP];  // maximum and weight
shared uint ticket;

// The outputs of the workgroup's heads, `sums[q * HEAD_SIZE + d]` where the next product wants blocks of bytes.
void store_output(uint row, uint first_head, uint i, float value) {
  if (NEXT == NEXT_FLOATS) {
    push.outputs.at[row * push.output_width + activation_index(first_head * HEAD_SIZE + i)] = floatBitsToUint(value);
  } else {
    sums[i] = value;
  }
}

float block_value(uint place, uint i) { return sums[place * 32 + i]; }

void store_output_blocks(uint row, uint first_head, uint heads_here) {
  if (NEXT == NEXT_FLOATS) return;
  barrier();
  if (NEXT == NEXT_HALVES) {
    uint first_word = (row * push.output_width + first_head * HEAD_SIZE) / 2;
    for (uint i = gl_LocalInvocationIndex; i < heads_here * HEAD_SIZE / 2; i += gl_WorkGroupSize.x) {
      push.outputs.at[first_word + i] = packHalf2x16(vec2(sums[2 * i], sums[2 * i + 1]));
    }
    return;
  }
  for (uint block = gl_SubgroupID; block < heads_here * HEAD_SIZE / 32; block += gl_NumSubgroups) {
    store_block(
        push.outputs, push.output_scales, row, push.output_width, first_head * HEAD_SIZE / 32 + block, block);
  }
}

// Which of the PARALLEL positions a lane takes the values of.
uint phase() { return PARALLEL > 1 ? gl_SubgroupInvocationID / OCTETS : 0; }

uvec4 values[VALUE_BATCH * OWN];
uvec4 keys[BATCH];
float parts[EACH * JOINED];  // what the splits of an invocation's outputs have left

// Where a position of a page lies in the cache, the places of all heads counted.
uint place_of(uint page, uint kv_head, uint position) {
  return (page * push.kv_head_count + kv_head) * KV_PAGE_TOKENS + position % KV_PAGE_TOKENS;
}

// The first of a lane's key octets.
uint first_octet() { return KEY_LANES > 1 ? gl_SubgroupInvocationID / POSITIONS * KEY_OCTETS : 0; }

// Loads BATCH key octets of the lane's own position, from its octet `first` on.
void load_keys(uint first, uint own_place) {
  [[unroll]] for (uint i = 0; i < BATCH; i++) {
    uint octet = first_octet() + min(first + i, KEY_OCTETS - 1);
    keys[i] = key_octet(own_place / KV_PAGE_TOKENS, octet, own_place % KV_PAGE_TOKENS);
  }
}

// Loads values of the positions from `first` on of a round; `own_place` is that of each lane's own position.
void load_values(uint first, uint own_place) {
  [[unroll]] for (uint u = 0; u < VALUE_BATCH; u++) {
    uint place = subgroupShuffle(own_place, min(first + u * PARALLEL + phase(), POSITIONS - 1));
    [[unroll]] for (uint o = 0; o < OWN; o++) {
      uint octet = OWN == 1 ? gl_SubgroupInvocationID % OCTETS : gl_SubgroupInvocationID + o * SUBGROUP_SIZE;
      values[u * OWN + o] = value_octet(place / KV_PAGE_TOKENS, place % KV_PAGE_TOKENS, min(octet, OCTETS - 1));
    }
  }
}

// Where the first split of output `i` of the workgroup's heads left its sum.
uint first_partial(uint row, HeadGroup heads, uint i) {
  i = min(i, heads.count * HEAD_SIZE - 1);
  return (row * push.head_count + heads.first + i / HEAD_SIZE) * SPLITS * PARTIAL + i % HEAD_SIZE;
}

// Loads JOINED parts of output `e` of an invocation, from split `first` on; `base` is where the first split's lies.
void load_parts(uint e, uint base, uint first, uint active_splits) {
  [[unroll]] for (uint u = 0; u < JOINED; u++) {
    parts[e * JOINED + u] = first + u < active_splits ? push.partials.at[base + (first + u) * PARTIAL] : 0.0;
  }
}

void attend() {
  uint thread = gl_LocalInvocationIndex;
  uint lane = gl_SubgroupInvocationID;
  AttentionTile tile = push.tiles.at[gl_WorkGroupID.x];
  if (gl_WorkGroupID.x >= push.step.tile_count) return;
  HeadGroup heads = head_group();
  uint row = tile.first_row;

  uint own_position = tile.first_position;
  uint end = own_position + 1;
  uint first_seen = push.window == 0 || own_position < push.window ? 0 : own_position - push.window + 1;
  uint begin = first_seen - first_seen % KV_PAGE_TOKENS;
  uint rounds = (end - begin + POSITIONS - 1) / POSITIONS;
  uint active_splits = min(SPLITS, (rounds + LEAST_ROUNDS - 1) / LEAST_ROUNDS);
  if (gl_WorkGroupID.z >= active_splits) return;

  uint table = tile.sequence * push.table_stride;
  // Where a round's positions lie is looked up a round before, the first one's while the stage before still runs.
  uint first_round = gl_SubgroupID * active_splits + gl_WorkGroupID.z;
  uint stride = active_splits * SUBGROUPS;
  uint position = begin + first_round * POSITIONS + lane % POSITIONS;
  uint next_page = push.block_tables.at[table + min(position, end - 1) / KV_PAGE_TOKENS];
  // So are the first keys and values themselves, unless the own position, which that stage computes, is among them.
  uint own_place = place_of(next_page, heads.kv_head, min(position, end - 1));
  bool is_early = CHAIN && EARLY && begin + (first_round + 1) * POSITIONS <= own_position;
  if (is_early) {
    load_values(0, own_place);
    load_keys(0, own_place);
  }
  wait_for_stage_before();
  for (uint i = thread; i < GROUP * HEAD_SIZE / 4; i += gl_WorkGroupSize.x) {
    vec4 query = vec4(0);
    if (i / (HEAD_SIZE / 4) < heads.count) {
      uint at = (row * push.head_count + heads.first) * HEAD_SIZE + 4 * i;
      query = vec4(push.queries.at[at], push.queries.at[at + 1], push.queries.at[at + 2], push.queries.at[at + 3]);
    }
    queries[i] = query * push.scale;
  }
  vec4 low[GROUP * OWN];
  vec4 high[GROUP * OWN];
  float maxima[GROUP];
  float weights[GROUP];
  [[unroll]] for (uint i = 0; i < GROUP * OWN; i++) low[i] = high[i] = vec4(0);
  [[unroll]] for (uint q = 0; q < GROUP; q++) {
    maxima[q] = MASKED;
    weights[q] = 0;
  }
  barrier();

  for (uint round = first_round; round < rounds; round += stride) {
    uint next_position = position + stride * POSITIONS;
    next_page = push.block_tables.at[table + min(next_position, end - 1) / KV_PAGE_TOKENS];
    // The first values are on their way while the keys are worked on.
    bool is_here = round == first_round ? is_early : AHEAD;
    if (!is_here) {
      load_values(0, own_place);
      load_keys(0, own_place);
    }
    float scores[GROUP];
    [[unroll]] for (uint q = 0; q < GROUP; q++) scores[q] = 0;
    [[unroll]] for (uint d = 0; d < KEY_OCTETS; d += BATCH) {
      if (d > 0) load_keys(d, own_place);
      [[unroll]] for (uint i = 0; i < BATCH; i++) {
        if (d + i >= KEY_OCTETS) continue;
        vec4 key_low = low_half(keys[i]);
        vec4 key_high = high_half(keys[i]);
        [[unroll]] for (uint q = 0; q < GROUP; q++) {
          uint at = q * (HEAD_SIZE / 4) + (first_octet() + d + i) * 2;
          scores[q] += dot(key_low, queries[at]) + dot(key_high, queries[at + 1]);
        }
      }
    }
    uint place = own_place;
    own_place = place_of(next_page, heads.kv_head, min(next_position, end - 1));
    bool goes_on = AHEAD && round + stride < rounds;
    if (goes_on) load_keys(0, own_place);
    bool seen = position < end && position >= first_seen;
    [[unroll]] for (uint q = 0; q < GROUP; q++) {
      float score = scores[q];
      [[unroll]] for (uint distance = POSITIONS; distance < SUBGROUP_SIZE; distance *= 2) {
        score += subgroupShuffleXor(score, distance);
      }
      if (push.softcap != 0) score = softcapped(score, push.softcap);
      score = seen ? score : MASKED;
      float maximum = max(maxima[q], subgroupMax(score));
      float factor = exp(maxima[q] - maximum);
      scores[q] = seen ? exp(score - maximum) : 0.0;
      maxima[q] = maximum;
      weights[q] = fma(weights[q], factor, scores[q]);
      [[unroll]] for (uint o = 0; o < OWN; o++) {
        low[q * OWN + o] *= factor;
        high[q * OWN + o] *= factor;
      }
    }
    for (uint i = 0; i < POSITIONS; i += VALUE_BATCH * PARALLEL) {
      if (i > 0) load_values(i, place);
      [[unroll]] for (uint u = 0; u < VALUE_BATCH; u++) {
        uint source = i + u * PARALLEL + phase();
        [[unroll]] for (uint q = 0; q < GROUP; q++) {
          float p = subgroupShuffle(scores[q], min(source, POSITIONS - 1));
          if (source >= POSITIONS) p = 0;
          [[unroll]] for (uint o = 0; o < OWN; o++) {
            low[q * OWN + o] = fma(vec4(p), low_half(values[u * OWN + o]), low[q * OWN + o]);
            high[q * OWN + o] = fma(vec4(p), high_half(values[u * OWN + o]), high[q * OWN + o]);
          }
        }
      }
    }
    if (goes_on) load_values(0, own_place);
    position = next_position;
  }

  // Phases meet in the subgroup, subgroups in shared memory.
  [[unroll]] for (uint q = 0; q < GROUP; q++) {
    [[unroll]] for (uint o = 0; o < OWN; o++) {
      vec4 sum_low = low[q * OWN + o];
      vec4 sum_high = high[q * OWN + o];
      if (PARALLEL > 1) {
        for (uint distance = OCTETS; distance < SUBGROUP_SIZE; distance *= 2) {
          sum_low += subgroupShuffleXor(sum_low, distance);
          sum_high += subgroupShuffleXor(sum_high, distance);
        }
      }
      uint mine = OWN == 1 ? lane : lane + o * SUBGROUP_SIZE;
      if (mine < OCTETS) {
        uint at = (gl_SubgroupID * GROUP + q) * HEAD_SIZE + 8 * mine;
        [[unroll]] for (uint i = 0; i < 4; i++) {
          sums[at + i] = sum_low[i];
          sums[at + 4 + i] = sum_high[i];
        }
      }
    }
    // Each lane that shares a position has counted it.
    float weight = subgroupAdd(weights[q]) / KEY_LANES;
    if (lane == 0) state[gl_SubgroupID * GROUP + q] = vec2(maxima[q], weight);
  }
  barrier();
  float joined[EACH];
  [[unroll]] for (uint e = 0; e < EACH; e++) {
    uint i = thread + e * gl_WorkGroupSize.x;
    uint q = min(i / HEAD_SIZE, GROUP - 1);
    float maximum = MASKED;
    [[unroll]] for (uint s = 0; s < SUBGROUPS; s++) maximum = max(maximum, state[s * GROUP + q].x);
    float sum = 0;
    float weight = 0;
    [[unroll]] for (uint s = 0; s < SUBGROUPS; s++) {
      float factor = exp(state[s * GROUP + q].x - maximum);
      sum = fma(factor, sums[min(s * OUTPUTS + i, SUBGROUPS * OUTPUTS - 1)], sum);
      weight = fma(factor, state[s * GROUP + q].y, weight);
    }
    if (active_splits == 1) {
      joined[e] = sum / weight;
    } else {
      joined[e] = sum;
      uint partial = ((row * push.head_count + heads.first + q) * SPLITS + gl_WorkGroupID.z) * PARTIAL;
      if (i < OUTPUTS && i % HEAD_SIZE == 0 && q < heads.count) {
        push.partials.at[partial + HEAD_SIZE] = maximum;
        push.partials.at[partial + HEAD_SIZE + 1] = weight;
      }
    }
  }
  barrier();
  [[unroll]] for (uint e = 0; e < EACH; e++) {
    uint i = thread + e * gl_WorkGroupSize.x;
    uint q = i / HEAD_SIZE;
    if (i >= OUTPUTS || q >= heads.count) continue;
    if (active_splits == 1) {
      store_output(row, heads.first, i, joined[e]);
    } else {
      uint partial = ((row * push.head_count + heads.first + q) * SPLITS + gl_WorkGroupID.z) * PARTIAL;
      push.partials.at[partial + i % HEAD_SIZE] = joined[e];
    }
  }
  if (active_splits == 1) {
    store_output_blocks(row, heads.first, heads.count);
    return;
  }

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
  // The first splits' sums are on their way while maxima and weights of all are.
  [[unroll]] for (uint e = 0; e < EACH; e++) {
    load_parts(e, first_partial(row, heads, thread + e * gl_WorkGroupSize.x), 0, active_splits);
  }
  for (uint i = thread; i < heads.count * SPLITS; i += gl_WorkGroupSize.x) {
    uint partial = ((row * push.head_count + heads.first) * SPLITS + i) * PARTIAL + HEAD_SIZE;
    bool exists = i % SPLITS < active_splits;
    sums[2 * i] = exists ? push.partials.at[partial] : MASKED;
    sums[2 * i + 1] = exists ? push.partials.at[partial + 1] : 0.0;
  }
  barrier();
  [[unroll]] for (uint e = 0; e < EACH; e++) {
    uint i = min(thread + e * gl_WorkGroupSize.x, heads.count * HEAD_SIZE - 1);
    uint q = i / HEAD_SIZE;
    float maximum = MASKED;
    for (uint s = 0; s < active_splits; s++) maximum = max(maximum, sums[2 * (q * SPLITS + s)]);
    float sum = 0;
    float weight = 0;
    uint base = first_partial(row, heads, i);
    for (uint first = 0; first < active_splits; first += JOINED) {
      if (first > 0) load_parts(e, base, first, active_splits);
      [[unroll]] for (uint u = 0; u < JOINED; u++) {
        uint at = 2 * (q * SPLITS + min(first + u, SPLITS - 1));
        float factor = first + u < active_splits ? exp(sums[at] - maximum) : 0.0;
        sum = fma(factor, parts[e * JOINED + u], sum);
        weight = fma(factor, sums[at + 1], weight);
      }
    }
    joined[e] = sum / weight;
  }
  barrier();
  [[unroll]] for (uint e = 0; e < EACH; e++) {
    uint i = thread + e * gl_WorkGroupSize.x;
    if (i < heads.count * HEAD_SIZE) store_output(row, heads.first, i, joined[e]);
  }
  store_output_blocks(row, heads.first, heads.count);
}

void main() {
  attend();
  finish_stage();
}
