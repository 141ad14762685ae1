// What happens to the matrix kernel's sums: four rows of a token at a time. Except for logits, rows come in fours.
#include "common/heads.glsl"

float activate(float x) {
  if (ACTIVATION == ACTIVATION_SILU) return x / (1 + exp(-x));
  // 0.5 * x * (1 + tanh(t)) is x / (1 + exp(-2 t)), which keeps its precision where tanh nears -1.
  float t = 0.7978845608028654 * (x + 0.044715 * x * x * x);
  return x / (1 + exp(-2 * t));
}

void finish_quad(uint row, uint token, vec4 values) {
  values *= push.scale;
  if (BIAS) {
    [[unroll]] for (uint i = 0; i < 4; i++) {
      if (row + i < push.rows) values[i] += push.bias.at[row + i];
    }
  }
  uint stacked_row = push.row_offset + row;
  if (EPILOGUE == EPILOGUE_STORE) {
    if (push.softcap != 0) values = push.softcap * tanh(clamp(values / push.softcap, -15.0, 15.0));
    uint index = token * push.output_stride + stacked_row;
    [[unroll]] for (uint i = 0; i < 4; i++) {
      if (row + i < push.rows) push.outputs.at[index + i] = values[i];
    }
  } else if (EPILOGUE == EPILOGUE_RESIDUAL) {
    uint index = token * push.output_stride + activation_index(stacked_row);
    [[unroll]] for (uint i = 0; i < 4; i++) push.outputs.at[index + i] += values[i];
  } else if (EPILOGUE == EPILOGUE_GATED) {
    vec2 hidden = vec2(activate(values.x) * values.y, activate(values.z) * values.w) * HIDDEN_SCALE;
    uint packed = packHalf2x16(clamp(hidden, vec2(-65504.0), vec2(65504.0)));
    push.outputs.at[(token * push.output_stride + stacked_row / 2) / 2] = uintBitsToFloat(packed);
  } else if (EPILOGUE == EPILOGUE_QKV
             || (EPILOGUE == EPILOGUE_QKV_NORM
                 && role_of_head(stacked_row / push.extras.data.head_size) == VALUE)) {
    store_head_pair(stacked_row, token, values.xy);
    store_head_pair(stacked_row + 2, token, values.zw);
  } else {
    // What waits for a norm over more rows: headnorm.comp and normalise.comp take it from there.
    uint index = token * push.extras.data.scratch_stride
        + (EPILOGUE == EPILOGUE_RESIDUAL_NORM ? activation_index(stacked_row) : stacked_row);
    [[unroll]] for (uint i = 0; i < 4; i++) push.extras.data.scratch.at[index + i] = values[i];
  }
}
