// Rotary position embedding with angles exact at any position.
//
// A frequency is a fraction of a turn per token, as a 0.64 fixed-point number (high word, low word): position times
// frequency modulo one turn is then integer arithmetic. Sine and cosine are polynomials on an eighth of a turn
// to either side, since the precision of a driver's own is not guaranteed.
vec2 rotate(vec2 pair, uvec2 frequency, uint position) {
  uint high, low;
  umulExtended(position, frequency.y, high, low);
  uint turn = position * frequency.x + high;
  uint quadrant = (turn + 0x20000000u) >> 30;
  float x = float(int(turn - (quadrant << 30))) * 1.4629180792671596e-9;  // pi / 2^31
  float x2 = x * x;
  float s = x * (1 + x2 * (-1.6666667e-1 + x2 * (8.3333310e-3 + x2 * (-1.9840874e-4 + x2 * 2.7525562e-6))));
  float c = 1 + x2 * (-0.5 + x2 * (4.1666668e-2 + x2 * (-1.3888889e-3 + x2 * 2.4801587e-5)));
  // A quarter turn maps (c, s) to (-s, c).
  if ((quadrant & 1u) != 0) {
    float t = c;
    c = -s;
    s = t;
  }
  if ((quadrant & 2u) != 0) {
    c = -c;
    s = -s;
  }
  return vec2(pair.x * c - pair.y * s, pair.x * s + pair.y * c);
}
