#version 460
// Inputs of matrix products: norm(inputs), in float16 and plain order, one workgroup a token.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool NORM = true;     // false: as they are
layout(constant_id = 2) const bool ADDEND = false;  // inputs += norm(addend) comes first
layout(constant_id = 3) const bool GATHER = false;  // the step's output rows, not all its rows

layout(push_constant) uniform Push { NormalisePush push; };

#include "common/workgroup_sum.glsl"

uint half_pair(vec2 pair) { return packHalf2x16(clamp(pair, vec2(-65504.0), vec2(65504.0))); }

// The two quads of an octet, in activation layout.
uvec2 quads_of(uint octet) { return uvec2(activation_quad(2 * octet), activation_quad(2 * octet + 1)); }

void main() {
  uint row = gl_WorkGroupID.x;
  if (row >= (GATHER ? push.step.output_count : push.step.row_count)) return;
  uint source = GATHER ? push.step.rows[row].output_row : row;
  uint input_base = source * push.input_stride / 4;
  uint octets = push.width / 8;

  // An invocation takes the same octets in every pass: nothing passes between invocations through memory.
  if (ADDEND) {
    uint addend_base = source * push.addend_stride / 4;
    float squares = 0;
    for (uint octet = gl_LocalInvocationIndex; octet < octets; octet += gl_WorkGroupSize.x) {
      uvec2 quads = quads_of(octet);
      vec4 low = push.addend.at[addend_base + quads.x];
      vec4 high = push.addend.at[addend_base + quads.y];
      squares += dot(low, low) + dot(high, high);
    }
    float scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.addend_epsilon);
    for (uint octet = gl_LocalInvocationIndex; octet < octets; octet += gl_WorkGroupSize.x) {
      uvec2 quads = quads_of(octet);
      [[unroll]] for (uint i = 0; i < 2; i++) {
        push.inputs.at[input_base + quads[i]] +=
            push.addend.at[addend_base + quads[i]] * scale * push.addend_norm.at[quads[i]];
      }
    }
  }

  float scale = 1;
  if (NORM) {
    float squares = 0;
    for (uint octet = gl_LocalInvocationIndex; octet < octets; octet += gl_WorkGroupSize.x) {
      uvec2 quads = quads_of(octet);
      vec4 low = push.inputs.at[input_base + quads.x];
      vec4 high = push.inputs.at[input_base + quads.y];
      squares += dot(low, low) + dot(high, high);
    }
    scale = inversesqrt(workgroup_sum(squares) / float(push.width) + push.epsilon);
  }
  for (uint octet = gl_LocalInvocationIndex; octet < octets; octet += gl_WorkGroupSize.x) {
    uvec2 quads = quads_of(octet);
    vec4 low = push.inputs.at[input_base + quads.x];
    vec4 high = push.inputs.at[input_base + quads.y];
    if (NORM) {
      low *= scale * push.norm.at[quads.x];
      high *= scale * push.norm.at[quads.y];
    }
    push.outputs.at[row * push.output_stride / 8 + octet] =
        uvec4(half_pair(low.xy), half_pair(low.zw), half_pair(high.xy), half_pair(high.zw));
  }
}
