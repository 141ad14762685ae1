// Levels of iq4_nl and iq4_xs: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113.
//
// A polynomial of degree 4 passes all 16 within 0.45 and is rounded: a table would be memory, or selections that
// take longer.

// The levels of the four numbers under 16 that are the bytes of `word`.
vec4 levels(uint word) {
  const float round_to_integer = 12582912;  // 1.5 * 2^23: a sum with it has no fraction
  vec4 q = bytes_to_floats(word);
  vec4 slope = fma(fma(fma(vec4(0.001448), q, vec4(0.036273)), q, vec4(-1.438564)), q, vec4(24.5006));
  precise vec4 rounded = fma(slope, q, vec4(round_to_integer - 127));
  rounded -= round_to_integer;
  return rounded;
}
