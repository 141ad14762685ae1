// The sum of a value over the workgroup, in a fixed order.
shared float subgroup_sums[gl_WorkGroupSize.x];

float workgroup_sum(float value) {
  value = subgroupAdd(value);
  barrier();
  if (gl_SubgroupInvocationID == 0) subgroup_sums[gl_SubgroupID] = value;
  barrier();
  float sum = 0;
  for (uint i = 0; i < gl_NumSubgroups; i++) sum += subgroup_sums[i];
  return sum;
}
