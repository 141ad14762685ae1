#version 460
// Causal attention over a paged KV cache, for devices that load lane by lane, CPU drivers: what costs is loads and
// barriers, so a workgroup is one subgroup that keeps everything in registers.
//
// It takes a tile of consecutive tokens of one sequence and query heads of one kv head. Lanes are positions for the
// scores and octets of value elements for the sums; queries and weights are handed to all lanes from the register
// they are in. The softmax is a running one, brought up to date after every ROUNDS subgroups of positions.
#extension GL_KHR_shader_subgroup_ballot : require
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint HEAD_SIZE = 64;
layout(constant_id = 2) const uint GROUP = 1;      // query heads of one kv head that a workgroup takes
layout(constant_id = 3) const uint TILE_ROWS = 1;  // most tokens in a tile
layout(constant_id = 4) const uint ROUNDS = 1;
layout(constant_id = 5) const uint CACHE = CACHE_F16;

layout(push_constant) uniform Push { AttentionPush push; };
#include "common/kv.glsl"
#include "common/softcap.glsl"
#include "attention/head_group.glsl"

const uint LANES = gl_WorkGroupSize.x;
const uint QUERIES = GROUP * TILE_ROWS;
const uint OCTETS = HEAD_SIZE / 8;
const uint OWN = (OCTETS + LANES - 1) / LANES;        // octets of value elements of a lane
const uint HELD = (HEAD_SIZE + LANES - 1) / LANES;    // elements of a query in a lane
const uint BLOCK = LANES * ROUNDS;
const float MASKED = -3.0e38;

// Element `d` of query q is in lane d % LANES.
float queries[QUERIES * HELD];
float query_element(uint q, uint d) { return subgroupBroadcast(queries[q * HELD + d / LANES], d % LANES); }

void main() {
  uint lane = gl_SubgroupInvocationID;
  if (gl_WorkGroupID.x >= push.step.tile_count) return;
  AttentionTile tile = push.tiles.at[gl_WorkGroupID.x];
  HeadGroup heads = head_group();

  // Query q is row q / GROUP of the tile and head q % GROUP of the group; those that are not there repeat others.
  [[unroll]] for (uint q = 0; q < QUERIES; q++) {
    uint row = tile.first_row + min(q / GROUP, tile.row_count - 1);
    uint head = heads.first + min(q % GROUP, heads.count - 1);
    [[unroll]] for (uint i = 0; i < HELD; i++) {
      uint d = min(i * LANES + lane, HEAD_SIZE - 1);
      queries[q * HELD + i] = push.queries.at[(row * push.head_count + head) * HEAD_SIZE + d] * push.scale;
    }
  }
  vec4 low[QUERIES * OWN];
  vec4 high[QUERIES * OWN];
  float maxima[QUERIES];
  float weights[QUERIES];  // each lane's own
  [[unroll]] for (uint i = 0; i < QUERIES * OWN; i++) low[i] = high[i] = vec4(0);
  [[unroll]] for (uint q = 0; q < QUERIES; q++) {
    maxima[q] = MASKED;
    weights[q] = 0;
  }

  uint first_position = tile.first_position;
  uint end = first_position + tile.row_count;
  uint begin = push.window == 0 || first_position < push.window ? 0 : first_position - push.window + 1;
  begin -= begin % KV_PAGE_TOKENS;
  uint table = tile.sequence * push.table_stride;
  for (uint block = begin; block < end; block += BLOCK) {
    float scores[ROUNDS * QUERIES];
    uint pages[ROUNDS];  // those of a round's positions are one
    [[unroll]] for (uint r = 0; r < ROUNDS; r++) {
      uint first = min(block + r * LANES, end - 1);
      pages[r] = push.block_tables.at[table + first / KV_PAGE_TOKENS] * push.kv_head_count + heads.kv_head;
      uint position = block + r * LANES + lane;
      uint own_slot = min(position, end - 1) % KV_PAGE_TOKENS;
      [[unroll]] for (uint q = 0; q < QUERIES; q++) scores[r * QUERIES + q] = 0;
      [[unroll]] for (uint octet = 0; octet < OCTETS; octet++) {
        uvec4 packed = key_octet(pages[r], octet, own_slot);
        vec4 key_low = low_half(packed);
        vec4 key_high = high_half(packed);
        [[unroll]] for (uint q = 0; q < QUERIES; q++) {
          float score = scores[r * QUERIES + q];
          [[unroll]] for (uint i = 0; i < 4; i++) score = fma(key_low[i], query_element(q, 8 * octet + i), score);
          [[unroll]] for (uint i = 0; i < 4; i++) score = fma(key_high[i], query_element(q, 8 * octet + 4 + i), score);
          scores[r * QUERIES + q] = score;
        }
      }
      [[unroll]] for (uint q = 0; q < QUERIES; q++) {
        float score = scores[r * QUERIES + q];
        if (push.softcap != 0) score = softcapped(score, push.softcap);
        uint query_position = first_position + q / GROUP;
        bool seen = position <= query_position && (push.window == 0 || position + push.window > query_position);
        scores[r * QUERIES + q] = seen ? score : MASKED;
      }
    }
    [[unroll]] for (uint q = 0; q < QUERIES; q++) {
      float block_maximum = scores[q];
      [[unroll]] for (uint r = 1; r < ROUNDS; r++) block_maximum = max(block_maximum, scores[r * QUERIES + q]);
      float maximum = max(maxima[q], subgroupMax(block_maximum));
      float factor = exp(maxima[q] - maximum);
      maxima[q] = maximum;
      weights[q] *= factor;
      [[unroll]] for (uint o = 0; o < OWN; o++) {
        low[q * OWN + o] *= factor;
        high[q * OWN + o] *= factor;
      }
      [[unroll]] for (uint r = 0; r < ROUNDS; r++) {
        float score = scores[r * QUERIES + q];
        float p = score > -1.0e38 ? exp(score - maximum) : 0.0;
        scores[r * QUERIES + q] = p;
        weights[q] += p;
      }
    }
    [[unroll]] for (uint r = 0; r < ROUNDS; r++) {
      uint first = block + r * LANES;
      [[unroll]] for (uint i = 0; i < LANES; i++) {
        // Positions past the end weigh nothing: the last one stands in for them.
        uint slot = min(first + i, end - 1) % KV_PAGE_TOKENS;
        [[unroll]] for (uint o = 0; o < OWN; o++) {
          uint octet = min(lane + o * LANES, OCTETS - 1);
          uvec4 packed = value_octet(pages[r], slot, octet);
          vec4 value_low = low_half(packed);
          vec4 value_high = high_half(packed);
          [[unroll]] for (uint q = 0; q < QUERIES; q++) {
            vec4 p = vec4(subgroupBroadcast(scores[r * QUERIES + q], i));
            low[q * OWN + o] = fma(p, value_low, low[q * OWN + o]);
            high[q * OWN + o] = fma(p, value_high, high[q * OWN + o]);
          }
        }
      }
    }
  }

  [[unroll]] for (uint q = 0; q < QUERIES; q++) {
    float weight = subgroupAdd(weights[q]);
    bool exists = q / GROUP < tile.row_count && q % GROUP < heads.count;
    uint row = tile.first_row + q / GROUP;
    uint first = (heads.first + q % GROUP) * HEAD_SIZE;
    [[unroll]] for (uint o = 0; o < OWN; o++) {
      uint octet = lane + o * LANES;
      if (exists && octet < OCTETS) {
        uint at = row * push.output_width + activation_index(first + 8 * octet);
        [[unroll]] for (uint i = 0; i < 4; i++) {
          push.outputs.at[at + i] = floatBitsToUint(low[q * OWN + o][i] / weight);
          push.outputs.at[at + 128 + i] = floatBitsToUint(high[q * OWN + o][i] / weight);  // the quad after
        }
      }
    }
  }
}
