// Reductions over a workgroup of SUBGROUPS subgroups, in a fixed order.
shared float reduce_floats[SUBGROUPS];
shared uint reduce_words[SUBGROUPS];

float group_max(float value) {
  value = subgroupMax(value);
  barrier();
  if (gl_SubgroupInvocationID == 0) reduce_floats[gl_SubgroupID] = value;
  barrier();
  float result = reduce_floats[0];
  for (uint i = 1; i < SUBGROUPS; i++) result = max(result, reduce_floats[i]);
  return result;
}

uint group_min(uint value) {
  value = subgroupMin(value);
  barrier();
  if (gl_SubgroupInvocationID == 0) reduce_words[gl_SubgroupID] = value;
  barrier();
  uint result = reduce_words[0];
  for (uint i = 1; i < SUBGROUPS; i++) result = min(result, reduce_words[i]);
  return result;
}

uint group_sum(uint value) {
  value = subgroupAdd(value);
  barrier();
  if (gl_SubgroupInvocationID == 0) reduce_words[gl_SubgroupID] = value;
  barrier();
  uint result = 0;
  for (uint i = 0; i < SUBGROUPS; i++) result += reduce_words[i];
  return result;
}

float group_sum(float value) {
  value = subgroupAdd(value);
  barrier();
  if (gl_SubgroupInvocationID == 0) reduce_floats[gl_SubgroupID] = value;
  barrier();
  float result = 0;
  for (uint i = 0; i < SUBGROUPS; i++) result += reduce_floats[i];
  return result;
}

// The sum over the invocations before this one.
float group_exclusive_sum(float value) {
  float within = subgroupExclusiveAdd(value);
  float total = subgroupAdd(value);
  barrier();
  if (gl_SubgroupInvocationID == 0) reduce_floats[gl_SubgroupID] = total;
  barrier();
  for (uint i = 0; i < gl_SubgroupID; i++) within += reduce_floats[i];
  return within;
}

// Orders as the float does.
uint key_of(float value) {
  uint bits = floatBitsToUint(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
