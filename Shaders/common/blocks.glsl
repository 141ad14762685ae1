// Product inputs as blocks of 32 signed bytes: x = byte * scale. Products with them are sums of packed integer dot
// products; the scaled sum of a block's bytes serves formats whose weights have a minimum or an offset.
//
// Lanes that hold neighbouring blocks of weights read whole cache lines: within each 1024 inputs, the first 16 bytes
// of every block come before the last 16 of any.

// The 16 bytes of half `part` (0 or 1) of a block, in quads of words.
uint block_quad(uint block, uint part) { return ((block >> 5) << 6) + (part << 5) + (block & 31u); }

// Input i of a block that is to be stored, where the shader that includes this file holds it: `place` is the shader's
// own name for the block.
float block_value(uint place, uint i);

// Quantises 32 inputs and stores them as block `block` of row `row`. The invocations of a subgroup do it together: it is
// among the last things of a stage, which the next one waits for.
void store_block(WordsOut bytes, FloatsOut scales, uint row, uint width, uint block, uint place) {
  const float magic = 12582912;  // 1.5 * 2^23: the low bits of a sum with it are the rounded number
  float largest = 0;
  for (uint i = gl_SubgroupInvocationID; i < 32; i += gl_SubgroupSize) {
    largest = max(largest, abs(block_value(place, i)));
  }
  largest = subgroupMax(largest);
  bool empty = !(largest > 1.0e-30);
  float inverse = empty ? 0.0 : 127 / largest;
  float scale = empty ? 0.0 : largest * (1.0 / 127);
  int total = 0;
  for (uint j = gl_SubgroupInvocationID; j < 8; j += gl_SubgroupSize) {
    uint word = 0;
    [[unroll]] for (uint i = 0; i < 4; i++) {
      uint bits = floatBitsToUint(fma(block_value(place, 4 * j + i), inverse, magic));
      total += int(bits) - 0x4b400000;
      word |= (bits & 255u) << (8 * i);
    }
    bytes.at[row * (width / 4) + 4 * block_quad(block, j >> 2) + (j & 3u)] = word;
  }
  total = subgroupAdd(total);
  if (gl_SubgroupInvocationID == 0) {
    scales.at[(row * (width / 32) + block) * 2] = scale;
    scales.at[(row * (width / 32) + block) * 2 + 1] = scale * float(total);
  }
}
