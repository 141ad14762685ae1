#version 460
// x = table[token] * scale, one invocation a chunk of weights, in activation layout.
//! formats: all
#include FORMAT_FILE
#include "common/types.glsl"
#include "common/bytes.glsl"

layout(local_size_x_id = 0) in;
layout(push_constant) uniform Push { EmbedPush push; };

#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"

void main() {
  uint row = gl_WorkGroupID.y;
  if (row >= push.step.row_count) return;
  uint chunks = push.columns / CHUNK;
  uint chunk = gl_GlobalInvocationID.x;
  if (chunk >= chunks) return;
  StepRow entry = push.step.rows[row];
  uint token = entry.token == TOKEN_FROM_DEVICE ? push.last_tokens.at[entry.sequence] : entry.token;
  token = min(token, push.vocabulary - 1);
  vec4 w[CHUNK / 4];
  unpack_chunk(load_chunk(token * chunks + chunk), w);
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
    uint base = row * push.output_stride + 4 * activation_quad(chunk * (CHUNK / 4) + j);
    [[unroll]] for (uint i = 0; i < 4; i++) push.outputs.at[base + i] = w[j][i] * push.scale;
  }
}
