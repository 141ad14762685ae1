#version 460
// float16 rows as rows of blocks of 32 signed bytes, in plain order: inputs of matrix_bytes.comp. x = byte * scale. An
// invocation makes a block.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;

layout(push_constant) uniform Push { QuantiseRowsPush push; };

void main() {
  uint block = gl_GlobalInvocationID.x;
  if (block >= push.blocks) return;
  uint source = gl_WorkGroupID.y * (push.input_stride / 8) + block * 4;
  uvec4 quads[4];
  [[unroll]] for (uint q = 0; q < 4; q++) quads[q] = push.inputs.at[source + q];
  float largest = 0;
  [[unroll]] for (uint i = 0; i < 16; i++) {
    vec2 pair = abs(unpackHalf2x16(quads[i / 4][i % 4]));
    largest = max(largest, max(pair.x, pair.y));
  }
  bool empty = !(largest > 1.0e-30);
  float inverse = empty ? 0.0 : 127 / largest;
  float scale = empty ? 0.0 : largest * (1.0 / 127);
  int total = 0;
  uint words[8];
  [[unroll]] for (uint j = 0; j < 8; j++) {
    words[j] = 0;
    [[unroll]] for (uint i = 0; i < 4; i++) {
      uint pair = 2 * j + i / 2;
      float value = unpackHalf2x16(quads[pair / 4][pair % 4])[i % 2];
      int rounded = int(round(value * inverse));
      total += rounded;
      words[j] |= (uint(rounded) & 255u) << (8 * i);
    }
  }
  uint row_block = gl_WorkGroupID.y * (push.output_stride / 32) + block;
  push.outputs.at[2 * row_block] = uvec4(words[0], words[1], words[2], words[3]);
  push.outputs.at[2 * row_block + 1] = uvec4(words[4], words[5], words[6], words[7]);
  push.scales.at[2 * row_block] = scale;
  push.scales.at[2 * row_block + 1] = scale * float(total);
}
