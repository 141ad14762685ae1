// outputs = epilogue(weights * inputs / rms) where a load costs as much as a dozen products: each lane has rows of its
// own, and no other lane's part of a sum to wait for.
//
// A workgroup is one subgroup, which takes VECTORS rows a lane, in pairs, and COLUMNS columns. Eight rows are
// interleaved (WeightFormat.rowInterleave), so that its loads of weights go from one end of memory to the other. Inputs
// come 32 at a time, a quad a lane, and each is handed to all lanes from the register it is in. Every sum is that of its
// chunks, in order, whatever the tiling.
#extension GL_KHR_shader_subgroup_ballot : require
#include "common/chunk.glsl"
#include "common/blocks.glsl"

const uint GROUP_ROWS = ROWS;
const uint LANES = gl_WorkGroupSize.x;
const uint VECTORS = ROWS / LANES;
const uint INTERLEAVE = 8;

shared float partial_sums[NEXT == NEXT_BYTES ? GROUP_ROWS * COLUMNS : SUBGROUPS];
shared uint ticket;

float sums[VECTORS * COLUMNS];

#include "linear/columns.glsl"

float squares[COLUMNS];
float inverse_rms(uint c) { return inversesqrt(squares[c] / float(push.columns) + push.epsilon); }

#include "linear/epilogue.glsl"
#include "linear/finish_group.glsl"
#include "linear/lane_outputs.glsl"

// The 32 inputs of a step of each column: quad j is in lane j % QUAD_LANES.
const uint QUAD_LANES = LANES < 8 ? LANES : 8;
const uint PARTS = 8 / QUAD_LANES;
vec4 inputs[COLUMNS * PARTS];
float input_totals[COLUMNS * PARTS];  // of a quad

float input_value(uint c, uint quad, uint i) {
  return subgroupBroadcast(inputs[c * PARTS + quad / QUAD_LANES][i], quad % QUAD_LANES);
}

#if defined(SCALED) || defined(HALVES)
#define QUANTS
#endif

// Small integers become floats where they stand in a word, which saves the shifts: times a power of two, by which inputs
// are divided when they are loaded. Both are exact.
#if defined(NIBBLES)
vec4 places_of(uint quad) {
  return quad % 8 < 4 ? vec4(1, 1.0 / 256, 1.0 / 65536, 1.0 / 16777216) : vec4(1.0 / 16, 1.0 / 4096, 1.0 / 1048576, 1);
}
vec4 quants_in_place(uint word, bool isHigh) {
  return isHigh ? vec4(word & 0xf0u, word & 0xf000u, word & 0xf00000u, word >> 28)
                : vec4(word & 0xfu, word & 0xf00u, word & 0xf0000u, word & 0xf000000u);
}
#elif defined(QUANTS) && !defined(SIGNED)
vec4 places_of(uint quad) { return vec4(1, 1.0 / 256, 1.0 / 65536, 1); }
vec4 quants_in_place(uint word) { return vec4(word & 0xffu, word & 0xff00u, word & 0xff0000u, word >> 24); }
#else
vec4 places_of(uint quad) { return vec4(1); }
#endif
// Weights that share a scale.
#ifdef HALVES
const uint RUN = CHUNK / 2;
#else
const uint RUN = CHUNK;
#endif

// The sum of the inputs of a run, `quad` being its first.
float run_total(uint c, uint quad) {
  float total = 0;
  [[unroll]] for (uint j = 0; j < RUN / 4; j++) {
    total += subgroupBroadcast(input_totals[c * PARTS + (quad + j) / QUAD_LANES], (quad + j) % QUAD_LANES);
  }
  return total;
}

// Adds a chunk of each row times the inputs from quad `quad` of the step on.
void accumulate(Chunk chunks[VECTORS], uint quad) {
#if defined(NIBBLES)
#elif defined(QUANTS)
  uint words[VECTORS][CHUNK / 4];
  [[unroll]] for (uint v = 0; v < VECTORS; v++) unpack_words(chunks[v], words[v]);
#else
  vec4 floats[VECTORS][CHUNK / 4];
  [[unroll]] for (uint v = 0; v < VECTORS; v++) unpack_chunk(chunks[v], floats[v]);
#endif
  [[unroll]] for (uint run = 0; run < CHUNK / RUN; run++) {
    float products[VECTORS * COLUMNS];
    [[unroll]] for (uint i = 0; i < VECTORS * COLUMNS; i++) products[i] = 0;
    [[unroll]] for (uint run_quad = 0; run_quad < RUN / 4; run_quad++) {
      uint j = run * (RUN / 4) + run_quad;
      vec4 w[VECTORS];
      [[unroll]] for (uint v = 0; v < VECTORS; v++) {
#if defined(NIBBLES)
        w[v] = quants_in_place(chunks[v].quants[j % 4], j >= 4);
#elif !defined(QUANTS)
        w[v] = floats[v][j];
#elif defined(SIGNED)
        w[v] = signed_bytes_to_floats(words[v][j]);
#else
        w[v] = quants_in_place(words[v][j]);
#endif
      }
      [[unroll]] for (uint i = 0; i < 4; i++) {
        [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
          float x = input_value(c, quad + j, i);
          [[unroll]] for (uint v = 0; v < VECTORS; v++) {
            products[v * COLUMNS + c] = fma(w[v][i], x, products[v * COLUMNS + c]);
          }
        }
      }
    }
#ifdef QUANTS
    vec2 scales[VECTORS];
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
#ifdef SCALED
      scales[v] = chunk_scale(chunks[v]);
#elif defined(HALF_MINIMA)
      scales[v] = vec2(half_scales(chunks[v])[run], half_minima(chunks[v])[run]);
#else
      scales[v] = half_scales(chunks[v])[run] * vec2(1, -float(OFFSET));
#endif
    }
#endif
    [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
#if defined(MINIMUM) || defined(HALVES)
      float total = run_total(c, quad + run * RUN / 4);
#endif
      [[unroll]] for (uint v = 0; v < VECTORS; v++) {
        uint i = v * COLUMNS + c;
#ifdef QUANTS
        sums[i] = fma(scales[v].x, products[i], sums[i]);
#else
        sums[i] += products[i];
#endif
#if defined(MINIMUM) || defined(HALVES)
        sums[i] = fma(scales[v].y, total, sums[i]);
#endif
      }
    }
  }
}

// A load that misses the cache holds up all that follow it, but loads of many lines, one after another, wait for them
// together. So before the chunks of the next WINDOW_STEPS steps are used, lanes read from each of their cache lines.
const uint WINDOW_CHUNKS = 128;
const uint STEP_CHUNKS = INTERLEAVE * 32 / CHUNK;
const uint WINDOW_STEPS = WINDOW_CHUNKS / STEP_CHUNKS;
const uint GROUPS = ROWS / INTERLEAVE;
uint first_chunks[GROUPS];  // of each eight rows
uint touched;

void touch_window(uint step) {
  uint lane = gl_SubgroupInvocationID % 8;
  [[unroll]] for (uint g = 0; g < GROUPS; g++) {
    uint last = first_chunks[g] + push.columns / CHUNK * INTERLEAVE - 1;
    uint first = first_chunks[g] + step * STEP_CHUNKS;
    [[unroll]] for (uint i = 0; i < WINDOW_CHUNKS / 32; i++) {
      Chunk chunk = load_chunk(min(first + 32 * i + 4 * lane, last));
#ifdef QUANTS
      uint words[CHUNK / 4];
      unpack_words(chunk, words);
      touched |= words[0];
#else
      vec4 w[CHUNK / 4];
      unpack_chunk(chunk, w);
      touched |= floatBitsToUint(w[0].x);
#endif
    }
    // The scales of sixteen chunks, or more, share a line.
    Chunk chunk = load_chunk(min(first + WINDOW_CHUNKS / 8 * lane, last));
#ifdef SCALED
    touched |= floatBitsToUint(chunk_scale(chunk).x);
#elif defined(HALVES)
    touched |= floatBitsToUint(half_scales(chunk).x);
#endif
  }
}

// Row of the workgroup that vector `v` of the lane is: two vectors have the rows of a pair, rope's or gate and up.
uint lane_row(uint v) { return v / 2 * (2 * LANES) + 2 * gl_SubgroupInvocationID + v % 2; }

void main() {
  uint first_column = gl_WorkGroupID.x * COLUMNS;
  uint count = GATHER ? push.step.output_count : push.step.row_count;
  if (first_column >= count) return;
  uint first_row = gl_WorkGroupID.y * GROUP_ROWS;
  const uint block_chunks = BLOCK / CHUNK;
  uint blocks_per_row = push.columns / BLOCK;
  // First chunk of each of the lane's rows; rows past the end are the last one once more.
  uint weight_rows[VECTORS];
  [[unroll]] for (uint v = 0; v < VECTORS; v++) {
    uint row = min(first_row + lane_row(v), push.rows - 1);
    uint in_group = row % INTERLEAVE;
    weight_rows[v] = ((row - in_group) * blocks_per_row + in_group) * block_chunks;
  }
  [[unroll]] for (uint g = 0; g < GROUPS; g++) {
    uint row = min(first_row + g * INTERLEAVE, (push.rows - 1) / INTERLEAVE * INTERLEAVE);
    first_chunks[g] = row * blocks_per_row * block_chunks;
  }
  uint input_rows[COLUMNS];
  uint input_stride = ((push.columns + 1023) & ~1023u) / 4;
  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    input_rows[c] = row_of_column(first_column + c, count) * input_stride;
  }
  [[unroll]] for (uint i = 0; i < VECTORS * COLUMNS; i++) sums[i] = 0;

  uint steps = push.columns / 32;
  touched = 0;
  for (uint first_step = 0; first_step < steps; first_step += WINDOW_STEPS) {
    touch_window(first_step);
    for (uint step = first_step; step < min(first_step + WINDOW_STEPS, steps); step++) {
      uint input_quad = 8 * step + gl_SubgroupInvocationID % QUAD_LANES;
      [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
        [[unroll]] for (uint part = 0; part < PARTS; part++) {
          uint quad = input_quad + part * QUAD_LANES;
          vec4 x = push.inputs.at[input_rows[c] + activation_quad(quad)];
          input_totals[c * PARTS + part] = (x.x + x.y) + (x.z + x.w);
          inputs[c * PARTS + part] = x * places_of(quad);
        }
      }
      [[unroll]] for (uint part = 0; part < 32 / CHUNK; part++) {
        uint chunk = step * (32 / CHUNK) + part;
        uint place = chunk / block_chunks * (INTERLEAVE * block_chunks) + chunk % block_chunks;
        Chunk chunks[VECTORS];
        [[unroll]] for (uint v = 0; v < VECTORS; v++) chunks[v] = load_chunk(weight_rows[v] + place);
        accumulate(chunks, part * (CHUNK / 4));
      }
    }
  }
  // Never so: it keeps compilers from dropping the loads that are there for the cache.
  if (steps == 0) sums[0] = float(touched);

  [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
    if (NORM) squares[c] = sum_squares(first_column + c, count);
  }
  clear_outputs();
  [[unroll]] for (uint pair_vector = 0; pair_vector < VECTORS / 2; pair_vector++) {
    uint pair = lane_row(2 * pair_vector) / 2;
    uint row = first_row + 2 * pair;
    [[unroll]] for (uint c = 0; c < COLUMNS; c++) {
      if (first_column + c < count && row < push.rows) {
        vec2 values = vec2(sums[2 * pair_vector * COLUMNS + c], sums[(2 * pair_vector + 1) * COLUMNS + c]);
        finish_pair(
            pair, c, row, first_column + c, pair_values(values, c, row), prepare_pair(row, first_column + c));
      }
    }
  }
  finish_group(first_row, first_column, min(COLUMNS, count - first_column));
}
