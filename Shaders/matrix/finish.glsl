// What happens to the matrix kernel's sums: through shared memory, where each subgroup puts a fragment along tokens at
// a time, to four rows of a token in a lane. Except for logits, rows come in fours.
#include "common/activate.glsl"
#include "common/heads.glsl"
#include "common/softcap.glsl"

// Where four rows of the residual stream lie, in quads.
uint residual_quad(uint row, uint token) {
  return (token * push.output_stride + activation_index(push.row_offset + row)) / 4;
}

// `residual` is what is there, for an epilogue that adds to it.
void finish_quad(uint row, uint token, vec4 values, vec4 residual) {
  values *= push.scale;
  if (BIAS) {
    [[unroll]] for (uint i = 0; i < 4; i++) {
      if (row + i < push.rows) values[i] += push.bias.at[row + i];
    }
  }
  uint stacked_row = push.row_offset + row;
  if (EPILOGUE == EPILOGUE_STORE) {
    if (push.softcap != 0) values = softcapped(values, push.softcap);
    uint index = token * push.output_stride + stacked_row;
    [[unroll]] for (uint i = 0; i < 4; i++) {
      if (row + i < push.rows) push.outputs.at[index + i] = values[i];
    }
  } else if (EPILOGUE == EPILOGUE_RESIDUAL) {
    Floats4Out(push.outputs).at[residual_quad(row, token)] = residual + values;
  } else if (EPILOGUE == EPILOGUE_GATED) {
    vec2 hidden = vec2(activate(values.x) * values.y, activate(values.z) * values.w) * HIDDEN_SCALE;
    uint packed = packHalf2x16(clamp(hidden, vec2(-65504.0), vec2(65504.0)));
    push.outputs.at[(token * push.output_stride + stacked_row / 2) / 2] = uintBitsToFloat(packed);
  } else if (EPILOGUE == EPILOGUE_QKV
             || (EPILOGUE == EPILOGUE_QKV_NORM
                 && role_of_head(stacked_row / push.extras.data.head_size) == VALUE)) {
    store_head_pair(stacked_row, token, values.xy, head_place(stacked_row, token));
    store_head_pair(stacked_row + 2, token, values.zw, head_place(stacked_row + 2, token));
  } else {
    // What waits for a norm over more rows: headnorm.comp and normalise.comp take it from there.
    uint index = token * push.extras.data.scratch_stride
        + (EPILOGUE == EPILOGUE_RESIDUAL_NORM || EPILOGUE == EPILOGUE_PARTIAL ? activation_index(stacked_row)
                                                                              : stacked_row);
    [[unroll]] for (uint i = 0; i < 4; i++) push.extras.data.scratch.at[index + i] = values[i];
  }
}

const uint ROW_QUADS = ROW_FRAGMENTS * M / 4;
const uint LANES = gl_WorkGroupSize.x / (ROW_SUBGROUPS * TOKEN_SUBGROUPS);
// Quads of a lane, for each fragment along tokens.
const uint QUADS = (N * ROW_QUADS + LANES - 1) / LANES;

// Row and token, within the subgroup's fragment along tokens, of the lane's i-th quad.
uvec2 quad_place(uint i) {
  uint item = i * LANES + gl_SubgroupInvocationID;
  return uvec2(item % ROW_QUADS * 4, item / ROW_QUADS);
}

void finish_place(uvec2 place, uint first_row, uint first_token, uint count, vec4 residual) {
  uint row = first_row + place.x;
  uint token = first_token + place.y;
  if (place.y >= N || row >= push.rows || token >= count) return;
  uint at = gl_SubgroupID * N * SUM_STRIDE + place.y * SUM_STRIDE + place.x / 4;
  finish_quad(row, token, uintBitsToFloat(tile[at]), residual);
}

// Finishes the subgroup's part of the tile, which starts at a row and a token, of `count`.
void finish_tile(uint first_row, uint first_token, uint count) {
  uint sum_quad = gl_SubgroupID * N * SUM_STRIDE;
  for (uint j = 0; j < TOKEN_FRAGMENTS; j++) {
    // What sums are added to is loaded all at once, since each load takes long.
    vec4 residual[EPILOGUE == EPILOGUE_RESIDUAL ? QUADS : 1u];
    if (EPILOGUE == EPILOGUE_RESIDUAL) {
      [[unroll]] for (uint i = 0; i < QUADS; i++) {
        uvec2 place = quad_place(i);
        uint row = min(first_row + place.x, push.rows - 4);
        uint token = min(first_token + j * N + place.y, count - 1);
        residual[i] = Floats4Out(push.outputs).at[residual_quad(row, token)];
      }
    }
    // Fragments stay in registers only if their indices are constants, and the rest is too long to be unrolled.
    [[unroll]] for (uint constant_j = 0; constant_j < TOKEN_FRAGMENTS; constant_j++) {
      if (constant_j == j) {
        [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
          coopMatStore(
              sums[i * TOKEN_FRAGMENTS + constant_j], tile, sum_quad + i * M / 4, SUM_STRIDE,
              gl_CooperativeMatrixLayoutColumnMajor);
        }
      }
    }
    barrier();
    if (EPILOGUE == EPILOGUE_RESIDUAL) {
      [[unroll]] for (uint i = 0; i < QUADS; i++) {
        finish_place(quad_place(i), first_row, first_token + j * N, count, residual[i]);
      }
    } else {
      for (uint i = 0; i < QUADS; i++) {
        finish_place(quad_place(i), first_row, first_token + j * N, count, vec4(0));
      }
    }
    barrier();
  }
}
