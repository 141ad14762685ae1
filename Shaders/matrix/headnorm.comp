#version 460
// Norms of query and key heads, then rope and where they belong: what the matrix kernel left in the scratch.
// A workgroup takes a token, a subgroup a head at a time.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(push_constant) uniform Push { HeadNormPush push; };

#include "common/heads.glsl"

void main() {
  uint token = gl_WorkGroupID.x;
  if (token >= push.step.row_count) return;
  uint head_size = push.extras.data.head_size;
  uint heads = push.extras.data.head_count + push.extras.data.kv_head_count;
  for (uint head = gl_SubgroupID; head < heads; head += gl_NumSubgroups) {
    uint base = token * push.extras.data.scratch_stride + head * head_size;
    float squares = 0;
    for (uint i = gl_SubgroupInvocationID; i < head_size; i += gl_SubgroupSize) {
      float value = push.extras.data.scratch.at[base + i];
      squares = fma(value, value, squares);
    }
    float scale = inversesqrt(subgroupAdd(squares) / float(head_size) + push.extras.data.norm_epsilon);
    bool query = role_of_head(head) == QUERY;
    for (uint i = 2 * gl_SubgroupInvocationID; i < head_size; i += 2 * gl_SubgroupSize) {
      vec2 values = vec2(push.extras.data.scratch.at[base + i], push.extras.data.scratch.at[base + i + 1]);
      vec2 weight = query ? vec2(push.extras.data.query_norm.at[i], push.extras.data.query_norm.at[i + 1])
                          : vec2(push.extras.data.key_norm.at[i], push.extras.data.key_norm.at[i + 1]);
      uint row = head * head_size + i;
      store_head_pair(row, token, values * scale * weight, head_place(row, token));
    }
  }
}
