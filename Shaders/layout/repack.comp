#version 460
// Weights as the file holds them, into the planes that kernels read: one invocation a block.
// Planes narrower than a word a block are filled with atomicOr into zeroed memory, since blocks that share a
// word may belong to different invocations, or to different dispatches.
//! formats: all
#include FORMAT_FILE
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(push_constant) uniform Push { RepackPush push; };

// Little-endian values at any byte address of the source.
uint source_word(uint address) {
  uint index = address >> 2;
  uint shift = (address & 3u) * 8;
  uint low = push.source.at[index] >> shift;
  return shift == 0 ? low : low | (push.source.at[index + 1] << (32 - shift));
}
uint source_byte(uint address) {
  return (push.source.at[address >> 2] >> ((address & 3u) * 8)) & 255u;
}
uint source_half(uint address) {
  return source_byte(address) | (source_byte(address + 1) << 8);
}

// Bit i of `bits` to bit i / 4 of byte i % 4.
uint spread_bits(uint bits) {
  uint result = 0;
  [[unroll]] for (uint j = 0; j < 8; j++) {
    uint four = (bits >> (4 * j)) & 15u;
    result |= ((four * 0x00204081u) & 0x01010101u) << j;
  }
  return result;
}

// Blocks of 256 hold 32 weights in 32 bytes, sharing each byte with other runs of 32. Of such weights:
// nibble n (0 low, 1 high) of the bytes from `run` on, as word j of plane0 in q4_0;
uint nibbles(uint run, uint n, uint j) {
  uint low = (source_word(run + 4 * j) >> (4 * n)) & 0x0f0f0f0fu;
  return low | (((source_word(run + 16 + 4 * j) >> (4 * n)) & 0x0f0f0f0fu) << 4);
}
// bit pair `chunk % 4` of the `chunk / 4`-th 32 bytes from `base` on, as word h of plane0 in q2_k;
uint bit_pairs(uint base, uint chunk, uint h) {
  uint run = base + 32 * (chunk / 4) + 16 * h;
  uint result = 0;
  [[unroll]] for (uint j = 0; j < 4; j++) {
    result |= ((source_word(run + 4 * j) >> (2 * (chunk & 3u))) & 0x03030303u) << (2 * j);
  }
  return result;
}
// bit `chunk` of the bytes from `run` on, as plane1 of q5_0.
uint bits(uint run, uint chunk) {
  uint result = 0;
  for (uint j = 0; j < 8; j++) result |= ((source_word(run + 4 * j) >> chunk) & 0x01010101u) << j;
  return result;
}

// Destination row of a row: pairs of a head's rotated elements, stored in halves, become neighbours.
uint ordered_row(uint row) {
  if (push.pair_head_size == 0) return row;
  uint element = row % push.pair_head_size;
  if (element >= push.pair_rotated_size) return row;
  uint half_size = push.pair_rotated_size / 2;
  uint pair = element % half_size;
  return row - element + 2 * pair + (element >= half_size ? 1 : 0);
}

#define FORMAT_REPACK
#include FORMAT_FILE

void main() {
  uint block = gl_GlobalInvocationID.x;
  uint row = gl_WorkGroupID.y;
  if (block >= push.blocks_per_row || row >= push.row_count) return;
  uint source = push.source_skip
      + (row * push.source_blocks_per_row + push.first_source_block + block) * BLOCK_BYTES;
  uint destination_row = push.row_offset + push.row_stride * ordered_row(push.first_row + row);
  uint in_group = destination_row % push.row_interleave;
  repack_block(
      source, (destination_row - in_group) * push.blocks_per_row + block * push.row_interleave + in_group);
}
