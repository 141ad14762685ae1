#version 460
// Chooses one token for each output: penalties, temperature, top-k, top-p, min-p, then a draw; or the best token.
//
// One workgroup an output. Thresholds are found by bisection over the bits of a monotonic integer key of the
// logit, so nothing is sorted and the result does not depend on the order of execution.
#include "common/types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SUBGROUPS = 8;

layout(push_constant) uniform Push { SamplePush push; };

#include "sampling/reduce.glsl"

// Penalties depend on how often the sequence holds the token; see SampleParameters.
float penalised(float logit, uint count, SampleParameters p) {
  if (count == 0) return logit;
  logit = logit > 0 ? logit / p.repeat_penalty : logit * p.repeat_penalty;
  uint generated = count & 0x7fffffffu;
  if (generated > 0) logit -= p.presence_penalty + p.frequency_penalty * float(generated);
  return logit;
}

uint hash(uint x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

// Uniform in [0, 1), a function of seed and position alone.
float random(SampleParameters p) {
  uint bits = hash(p.position + 0x9e3779b9u * hash(p.seed_low + 0x85ebca6bu * hash(p.seed_high)));
  return float(bits >> 8) * 5.9604644775390625e-8;
}

void main() {
  uint output_index = gl_WorkGroupID.x;
  if (output_index >= push.step.output_count) return;
  SampleParameters p = push.parameters.at[output_index];
  uint base = output_index * push.logits_stride;
  uint thread = gl_LocalInvocationIndex;
  uint vocabulary = push.vocabulary;
  uint counts = p.sequence * vocabulary;
  bool penalties = p.repeat_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;

  // The best token, the lowest id among equals.
  float best = -3.4e38;
  uint best_token = 0xffffffffu;
  if (push.best_count > 0 && !penalties && p.temperature <= 0) {
    // Each workgroup of the logits' product has left its best.
    for (uint i = thread; i < push.best_count; i += gl_WorkGroupSize.x) {
      uvec2 pair = push.best.at[output_index * push.best_count + i];
      float logit = uintBitsToFloat(pair.x);
      if (logit > best) {
        best = logit;
        best_token = pair.y;
      }
    }
    vocabulary = 0;
  }
  for (uint i = thread; i < vocabulary; i += gl_WorkGroupSize.x) {
    float logit = push.logits.at[base + i];
    if (penalties) {
      logit = penalised(logit, push.counts.at[counts + i], p);
      push.logits.at[base + i] = logit;
    }
    if (logit > best) {
      best = logit;
      best_token = i;
    }
  }
  float maximum = group_max(best);
  uint token = group_min(best == maximum ? best_token : 0xffffffffu);

  if (p.temperature > 0) {
    // Keys below `cut` are dropped.
    float inverse_temperature = 1 / p.temperature;
    uint cut = 0;
    if (p.top_k > 0 && p.top_k < vocabulary) {
      // The largest key that at least top_k logits reach.
      uint top_k_cut = 0;
      for (uint bit = 0x80000000u; bit != 0; bit >>= 1) {
        uint reached = 0;
        for (uint i = thread; i < vocabulary; i += gl_WorkGroupSize.x) {
          if (key_of(push.logits.at[base + i]) >= (top_k_cut | bit)) reached++;
        }
        if (group_sum(reached) >= p.top_k) top_k_cut |= bit;
      }
      cut = top_k_cut;
    }
    // top-p counts the mass that top-k leaves.
    if (p.top_p < 1) {
      uint top_k_cut = cut;
      float total = 0;
      for (uint i = thread; i < vocabulary; i += gl_WorkGroupSize.x) {
        float logit = push.logits.at[base + i];
        if (key_of(logit) >= top_k_cut) total += exp((logit - maximum) * inverse_temperature);
      }
      float wanted = p.top_p * group_sum(total);
      uint top_p_cut = 0;
      for (uint bit = 0x80000000u; bit != 0; bit >>= 1) {
        uint candidate = max(top_p_cut | bit, top_k_cut);
        float mass = 0;
        for (uint i = thread; i < vocabulary; i += gl_WorkGroupSize.x) {
          float logit = push.logits.at[base + i];
          if (key_of(logit) >= candidate) mass += exp((logit - maximum) * inverse_temperature);
        }
        if (group_sum(mass) >= wanted) top_p_cut |= bit;
      }
      cut = max(cut, min(top_p_cut, key_of(maximum)));
    }
    // min-p is a bound on the logit itself; it comes last, so that top-p counts mass that it drops.
    if (p.min_p > 0) cut = max(cut, key_of(maximum + p.temperature * log(p.min_p)));
    // Each invocation takes a run of tokens; the draw falls into one run, whose owner walks it.
    uint run = (vocabulary + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
    uint first = min(thread * run, vocabulary);
    uint end = min(first + run, vocabulary);
    float mass = 0;
    for (uint i = first; i < end; i++) {
      float logit = push.logits.at[base + i];
      if (key_of(logit) >= cut) mass += exp((logit - maximum) * inverse_temperature);
    }
    float before = group_exclusive_sum(mass);
    float total = group_sum(mass);
    float target = random(p) * total;
    uint drawn = 0xffffffffu;
    if (mass > 0 && target >= before && target < before + mass) {
      float sum = before;
      for (uint i = first; i < end; i++) {
        float logit = push.logits.at[base + i];
        if (key_of(logit) < cut) continue;
        sum += exp((logit - maximum) * inverse_temperature);
        drawn = i;
        if (sum > target) break;
      }
    }
    // Rounding can leave a gap between two runs: then the best token stands.
    drawn = group_min(drawn);
    if (drawn != 0xffffffffu) token = drawn;
  }
  if (thread == 0) {
    token = min(token, push.vocabulary - 1);
    push.results.at[output_index] = token;
    push.last_tokens.at[p.sequence] = token;
    if (penalties) push.counts.at[counts + token] = push.counts.at[counts + token] + 1;
  }
}
