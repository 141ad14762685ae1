// What happens to four rows' sums of a token, on matrix units. Except for logits, rows come in fours.
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
