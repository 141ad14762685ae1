// The query heads of one kv head that a workgroup takes, up to GROUP (a specialization constant) of them: the groups
// of all kv heads follow one another along y.
struct HeadGroup {
  uint kv_head;
  uint first;  // query head
  uint count;
};

HeadGroup head_group() {
  uint heads_per_kv = push.head_count / push.kv_head_count;
  uint groups_per_kv = (heads_per_kv + GROUP - 1) / GROUP;
  uint kv_head = gl_WorkGroupID.y / groups_per_kv;
  uint first_in_kv = gl_WorkGroupID.y % groups_per_kv * GROUP;
  return HeadGroup(kv_head, kv_head * heads_per_kv + first_in_kv, min(GROUP, heads_per_kv - first_in_kv));
}
