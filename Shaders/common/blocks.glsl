// Product inputs as blocks of 16 signed bytes: x = byte * scale. Products with them are sums of packed integer dot
// products; the scaled sum of a block's bytes serves formats whose weights have a minimum or an offset.
//
// Lanes that hold neighbouring runs of 32 weights read whole cache lines: within each 1024 inputs, the first block of
// every 32 comes before the second of any. The scales of both and their sums are four neighbouring floats.

// The 16 bytes of a block, in quads of words: block `part` (0 or 1) of the 32 inputs `pair`.
uint block_quad(uint pair, uint part) { return ((pair >> 5) << 6) + (part << 5) + (pair & 31u); }

// Quantises 16 inputs and stores them as block `block` of row `row`. One invocation does it: no subgroup size and no
// barrier is needed, and the whole costs less than a step of a product.
void store_block(WordsOut bytes, FloatsOut scales, uint row, uint width, uint block, float values[16]) {
  const float magic = 12582912;  // 1.5 * 2^23: the low bits of a sum with it are the rounded number
  float largest = 0;
  [[unroll]] for (uint i = 0; i < 16; i++) largest = max(largest, abs(values[i]));
  bool empty = !(largest > 1.0e-30);
  float inverse = empty ? 0.0 : 127 / largest;
  float scale = empty ? 0.0 : largest * (1.0 / 127);
  uint pair = block / 2;
  uint part = block & 1u;
  int total = 0;
  [[unroll]] for (uint j = 0; j < 4; j++) {
    uint word = 0;
    [[unroll]] for (uint i = 0; i < 4; i++) {
      uint bits = floatBitsToUint(fma(values[4 * j + i], inverse, magic));
      total += int(bits) - 0x4b400000;
      word |= (bits & 255u) << (8 * i);
    }
    bytes.at[row * (width / 4) + 4 * block_quad(pair, part) + j] = word;
  }
  uint at = row * (width / 8) + 4 * pair + part;
  scales.at[at] = scale;
  scales.at[at + 2] = scale * float(total);
}
