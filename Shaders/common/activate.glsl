// The activation of a feed-forward stage. Wants ACTIVATION, a specialization constant.
float activate(float x) {
  if (ACTIVATION == ACTIVATION_SILU) return x / (1 + exp(-x));
  // 0.5 * x * (1 + tanh(t)) is x / (1 + exp(-2 t)), which keeps its precision where tanh nears -1.
  float t = 0.7978845608028654 * (x + 0.044715 * x * x * x);
  return x / (1 + exp(-2 * t));
}
