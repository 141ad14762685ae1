#version 460
// x = [x +] norm(sum over ranks of their parts), and what the next product wants of it: a workgroup for each token, or
// where there is no norm of the sum several, each with a slice.
//
// The others' parts lie in memory that the devices share, the own one is at hand. Every rank adds them in the same
// order, so all get the same bits. Where few workgroups wait, they meet the other ranks themselves (MEETS), which saves
// a dispatch and the barrier behind it.
#define CHAINED
#include "common/types.glsl"
#include "common/blocks.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint NEXT = NEXT_NONE;
layout(constant_id = 2) const bool RESIDUAL = true;
layout(constant_id = 3) const bool POST_NORM = false;
layout(constant_id = 4) const uint RANKS = 1;
layout(constant_id = 5) const uint QUADS = 1;  // of a row that an invocation holds at once

layout(constant_id = 6) const bool MEETS = false;
layout(constant_id = 7) const uint PATIENCE = 1u << 27;
layout(constant_id = 8) const uint SLOTS = 1;
layout(constant_id = 9) const uint LINES = 1;
layout(constant_id = 10) const uint END_LINES = 1;

layout(push_constant) uniform Push { CombinePush push; };

#define MEETING push.meeting.data
#include "mesh/meeting.glsl"

#include "common/workgroup_sum.glsl"

vec4 x[QUADS];

// Whether a quad of the activation layout has a part of the row: the last 1024 places may not be all in use.
bool is_used(uint quad) { return ((quad & ~255u) | ((quad & 31u) << 3) | ((quad >> 5) & 7u)) < push.width / 4; }

// Sums of the parts of quads `first`, `first` + the size of the workgroup and so on; zeros where the row has none. All
// loads are under way at once: what other devices have left may be far away.
void add_parts(uint first) {
  uint row = gl_WorkGroupID.x;
  vec4 parts[QUADS * RANKS];
  [[unroll]] for (uint k = 0; k < QUADS; k++) {
    uint quad = first + k * gl_WorkGroupSize.x;
    bool loads = is_used(quad);
    [[unroll]] for (uint rank = 0; rank < RANKS; rank++) {
      vec4 part = vec4(0);
      if (loads && rank == push.rank) {
        part = push.own.at[row * (push.own_stride / 4) + quad];
      } else if (loads) {
        part = push.parts.at[rank * (push.rank_stride / 4) + row * (push.part_stride / 4) + quad];
      }
      parts[k * RANKS + rank] = part;
    }
  }
  [[unroll]] for (uint k = 0; k < QUADS; k++) {
    x[k] = parts[k * RANKS];
    [[unroll]] for (uint rank = 1; rank < RANKS; rank++) x[k] += parts[k * RANKS + rank];
  }
}

float block_value(uint block, uint i) {
  uint quad = activation_quad(8 * block + i / 4);
  return push.residual.at[gl_WorkGroupID.x * (push.residual_stride / 4) + quad][i % 4]
      * push.next.norm.at[4 * quad + i % 4];
}

// The own part is written; returns when those of the others are.
void meet_ranks() {
  uint count = MEETING.step.at[MESH_STEP_BASE] + push.reached;
  uint slot = SLOTS == 1 ? 0 : push.reached % (SLOTS - 1);
  bool tells = gl_WorkGroupID.x == 0 && gl_WorkGroupID.y == 0;
  if (tells) tell(count, slot);
  wait_for_others(count, slot, tells ? count : 0);
  controlBarrier(
      gl_ScopeWorkgroup, gl_ScopeWorkgroup, gl_StorageSemanticsBuffer,
      gl_SemanticsAcquireRelease | gl_SemanticsMakeAvailable | gl_SemanticsMakeVisible);
}

void main() {
  uint row = gl_WorkGroupID.x;
  if (row >= push.step.row_count) return;
  if (MEETS) meet_ranks();
  // Slices are as long as what the activation layout keeps together, or a multiple.
  uint quads = (push.width + 1023) / 1024 * 256 / gl_NumWorkGroups.y;
  uint begin = gl_WorkGroupID.y * quads;
  uint end = begin + quads;
  uint span = QUADS * gl_WorkGroupSize.x;
  float scale = 1;
  if (POST_NORM) {
    float squares = 0;
    for (uint first = begin + gl_LocalInvocationIndex; first < end; first += span) {
      add_parts(first);
      [[unroll]] for (uint k = 0; k < QUADS; k++) squares += dot(x[k], x[k]);
    }
    scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.epsilon);
  }
  float squares = 0;
  for (uint first = begin + gl_LocalInvocationIndex; first < end; first += span) {
    // Rows that invocations hold whole are there from above.
    if (!POST_NORM || quads > span) add_parts(first);
    [[unroll]] for (uint k = 0; k < QUADS; k++) {
      uint quad = first + k * gl_WorkGroupSize.x;
      if (quad >= end || !is_used(quad)) continue;
      uint place = row * (push.residual_stride / 4) + quad;
      if (POST_NORM) x[k] *= scale * push.post_norm.at[quad];
      if (RESIDUAL) x[k] += push.residual.at[place];
      push.residual.at[place] = x[k];
      squares += dot(x[k], x[k]);
      if (NEXT == NEXT_FLOATS) {
        [[unroll]] for (uint i = 0; i < 4; i++) {
          push.next.values.at[row * push.next.width + 4 * quad + i] =
              floatBitsToUint(x[k][i] * push.next.norm.at[4 * quad + i]);
        }
      }
    }
  }
  if (NEXT == NEXT_BYTES) {
    // A subgroup makes a block together, of what all invocations have written.
    controlBarrier(
        gl_ScopeWorkgroup, gl_ScopeWorkgroup, gl_StorageSemanticsBuffer,
        gl_SemanticsAcquireRelease | gl_SemanticsMakeAvailable | gl_SemanticsMakeVisible);
    uint end_block = min(end / 8, push.width / 32);
    for (uint block = begin / 8 + gl_SubgroupID; block < end_block; block += gl_NumSubgroups) {
      store_block(push.next.values, push.next.scales, row, push.next.width, block, block);
    }
  }
  if (NEXT == NEXT_NONE) return;
  squares = workgroup_sum(squares);
  if (gl_LocalInvocationIndex == 0) push.next.squares.at[row * gl_NumWorkGroups.y + gl_WorkGroupID.y] = squares;
}
