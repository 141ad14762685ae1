// Stacked rows of Q|K|V: whose they are, and where pairs of them go. Wants `push.step`, `push.extras`,
// `push.outputs` and `push.output_stride`.
#include "common/rope.glsl"

const uint QUERY = 0;
const uint KEY = 1;
const uint VALUE = 2;
uint role_of_head(uint head) {
  if (head < push.extras.data.head_count) return QUERY;
  return head < push.extras.data.head_count + push.extras.data.kv_head_count ? KEY : VALUE;
}

// What storing a pair of a head needs besides its values: loaded apart from it, so that it can be early.
struct HeadPlace {
  uvec2 frequency;  // rope
  uint position;
  uint page;
};

HeadPlace head_place(uint stacked_row, uint column) {
  StepRow entry = push.step.rows[column];
  uint page = push.extras.data.block_tables.at[entry.sequence * push.extras.data.table_stride
                                               + entry.position / KV_PAGE_TOKENS];
  uint element = stacked_row % push.extras.data.head_size;
  uvec2 frequency = uvec2(0);
  if (element < push.extras.data.rotated_size) {
    frequency = uvec2(push.extras.data.rope.at[element], push.extras.data.rope.at[element + 1]);
  }
  return HeadPlace(frequency, entry.position, page);
}

// Turns a pair of elements of a query or key head; leaves one of a value head as it is.
vec2 rotate_head_pair(uint stacked_row, vec2 values, HeadPlace place) {
  uint head_size = push.extras.data.head_size;
  bool turns = role_of_head(stacked_row / head_size) != VALUE
      && stacked_row % head_size < push.extras.data.rotated_size;
  return turns ? rotate(values, place.frequency, place.position) * push.extras.data.rope_magnitude : values;
}

// Stores a pair of elements, turned already, where its head belongs.
void store_rotated_pair(uint stacked_row, uint column, vec2 values, HeadPlace place) {
  uint head_size = push.extras.data.head_size;
  uint head = stacked_row / head_size;
  uint element = stacked_row % head_size;
  uint role = role_of_head(head);
  if (role == QUERY) {
    uint index = column * push.output_stride + stacked_row;
    push.outputs.at[index] = values.x;
    push.outputs.at[index + 1] = values.y;
    return;
  }
  if (push.extras.data.fresh_stride != 0) {
    // Blocks of a quantised cache are made when they are whole: attention/cache_write.comp.
    uint index = column * push.extras.data.fresh_stride + stacked_row - push.extras.data.head_count * head_size;
    push.extras.data.fresh.at[index] = values.x;
    push.extras.data.fresh.at[index + 1] = values.y;
    return;
  }
  uint slot = place.position % KV_PAGE_TOKENS;
  uint packed = packHalf2x16(clamp(values, vec2(-65504.0), vec2(65504.0)));
  uint kv_heads = push.extras.data.kv_head_count;
  if (role == KEY) {
    uint kv_head = head - push.extras.data.head_count;
    uint octet = ((place.page * kv_heads + kv_head) * (head_size / 8) + element / 8) * KV_PAGE_TOKENS + slot;
    push.extras.data.keys.at[octet * 4 + (element % 8) / 2] = packed;
  } else {
    uint kv_head = head - push.extras.data.head_count - kv_heads;
    push.extras.data.values.at[(((place.page * kv_heads + kv_head) * KV_PAGE_TOKENS + slot) * head_size + element) / 2] =
        packed;
  }
}

// Turns a pair of elements of a query or key head, and stores a pair of any head.
void store_head_pair(uint stacked_row, uint column, vec2 values, HeadPlace place) {
  store_rotated_pair(stacked_row, column, rotate_head_pair(stacked_row, values, place), place);
}
