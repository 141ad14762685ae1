#version 460
// The log-probability of a given token at each output: logit - log(sum(exp(logits))).
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SUBGROUPS = 8;

layout(push_constant) uniform Push { SamplePush push; };

#include "sampling/reduce.glsl"

void main() {
  uint output_index = gl_WorkGroupID.x;
  if (output_index >= push.step.output_count) return;
  uint base = output_index * push.logits_stride;
  float maximum = -3.4e38;
  for (uint i = gl_LocalInvocationIndex; i < push.vocabulary; i += gl_WorkGroupSize.x) {
    maximum = max(maximum, push.logits.at[base + i]);
  }
  maximum = group_max(maximum);
  float sum = 0;
  for (uint i = gl_LocalInvocationIndex; i < push.vocabulary; i += gl_WorkGroupSize.x) {
    sum += exp(push.logits.at[base + i] - maximum);
  }
  sum = group_sum(sum);
  if (gl_LocalInvocationIndex == 0) {
    uint target = min(push.parameters.at[output_index].target, push.vocabulary - 1);
    push.results.at[output_index] = floatBitsToUint(push.logits.at[base + target] - maximum - log(sum));
  }
}
