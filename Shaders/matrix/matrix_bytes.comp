#version 460
// outputs = epilogue(weights * inputs) for many tokens at once, on the matrix units, in bytes: integers of weights by
// inputs in blocks of bytes (matrix/quantise_rows.comp). Sums of a block are exact; the scales of both multiply them once.
//
// Which elements of a fragment an invocation holds, Vulkan leaves to the device. Of fragments of sums the host has found
// out how far they are from the invocation's first one (FragmentProbe), and where that is, the shader asks: so scales are
// read for rows and tokens, which are few, not for elements.
//! formats: q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k
//! needs: GL_KHR_cooperative_matrix
#include FORMAT_FILE
#include "common/types.glsl"
#include "common/bytes.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require

layout(push_constant) uniform Push { MatrixPush push; };

#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"

#define INPUT_BYTES 1
#define BLOCK_SCALES
// Unsigned integers are counted from the middle of their range, so that they are signed bytes and minima are small.
// Those of some formats are gone then.
#if defined(NIBBLES)
#define MIDDLE 8u
#elif defined(MINIMUM)
#define MIDDLE 16u
#endif
#if defined(MINIMUM) && !defined(FORMAT_Q4_0) && !defined(FORMAT_Q5_0)
#define ROW_MINIMA
#endif
layout(constant_id = 15) const uint ROW_PLACES = 0;    // rows and tokens from the first of an invocation's elements to
layout(constant_id = 16) const uint TOKEN_PLACES = 0;  // each, four bits each

#include "matrix/tile.glsl"

// Fragments of sums hold floats once products are done, by their bits.
#define ACCUMULATOR coopmat<int, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
const uint ELEMENTS = M * N / LANES;
float sums[ROW_FRAGMENTS * TOKEN_FRAGMENTS][ELEMENTS];
// Row and token, in a fragment, of the invocation's first element.
uint lane_row, lane_token;

void clear_sums() {
  [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS * TOKEN_FRAGMENTS; i++) {
    [[unroll]] for (uint e = 0; e < ELEMENTS; e++) sums[i][e] = 0;
  }
}

void begin_sums() {
  clear_sums();
  for (uint i = gl_LocalInvocationIndex; i < M * N / 4; i += THREADS) tile[i] = 4 * i + uvec4(0, 1, 2, 3);
  barrier();
  ACCUMULATOR numbers;
  coopMatLoad(numbers, tile, 0, N / 4, gl_CooperativeMatrixLayoutRowMajor);
  lane_row = uint(numbers[0]) / N;
  lane_token = uint(numbers[0]) % N;
  barrier();
}

ACCUMULATOR sum_fragment(uint i) {
  ACCUMULATOR fragment;
  [[unroll]] for (uint e = 0; e < ELEMENTS; e++) fragment[e] = floatBitsToInt(sums[i][e]);
  return fragment;
}

void add_sums(uint i, ACCUMULATOR other) {
  [[unroll]] for (uint e = 0; e < ELEMENTS; e++) sums[i][e] += intBitsToFloat(other[e]);
}

void store_weights(Chunk chunk, uint row, uint index) {
  uint words[CHUNK / 4];
  unpack_words(chunk, words);
#ifdef MIDDLE
  // The top bits, set meanwhile, keep one byte from borrowing from the next.
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
    words[j] = ((words[j] | 0x80808080u) - MIDDLE * 0x01010101u) ^ 0x80808080u;
  }
#endif
  [[unroll]] for (uint j = 0; j < CHUNK / 16; j++) {
    store_quad(
        row * STRIDE, index * (CHUNK / 16) + j,
        uvec4(words[4 * j], words[4 * j + 1], words[4 * j + 2], words[4 * j + 3]));
  }
  vec2 scale = chunk_scale(chunk);
  uint place = index / (32 / CHUNK) * TILE_ROWS + row;
  // Of two chunks with the same scale, the first one stores it.
  if (index % (32 / CHUNK) == 0) {
    row_scales[place] = scale.x;
#ifdef ROW_MINIMA
    row_minima[place] = fma(scale.x, float(MIDDLE), scale.y);
#endif
  }
}

// The float 1.5 * 2^23: integers that are added to its bits, as float, are added to it. What is left by taking it away
// again is the integer as float, which costs less than to convert it.
const int MAGIC_BITS = 0x4b400000;
const float MAGIC = 12582912;

void multiply_step(uint row, uint token) {
  const uint block_fragments = 32 / K;
  uint row_quad = row * STRIDE;
  uint token_quad = FIRST_TOKEN_QUAD + token * STRIDE;
  [[unroll]] for (uint block = 0; block < STEP_BLOCKS; block++) {
    uint at = block * block_fragments * FRAGMENT_QUADS;
    uint row_place = block * TILE_ROWS + row + lane_row;
    uint token_place = block * TILE_TOKENS + token + lane_token;
    coopmat<int8_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[ROW_FRAGMENTS * block_fragments];
    [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS * block_fragments; i++) {
      coopMatLoad(
          a[i], tile,
          row_quad + i / block_fragments * M * STRIDE + at + i % block_fragments * FRAGMENT_QUADS, STRIDE,
          gl_CooperativeMatrixLayoutRowMajor);
    }
    [[unroll]] for (uint j = 0; j < TOKEN_FRAGMENTS; j++) {
      coopmat<int8_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b[block_fragments];
      [[unroll]] for (uint k = 0; k < block_fragments; k++) {
        coopMatLoad(
            b[k], tile, token_quad + j * N * STRIDE + at + k * FRAGMENT_QUADS, STRIDE,
            gl_CooperativeMatrixLayoutColumnMajor);
      }
      [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
        ACCUMULATOR products = ACCUMULATOR(MAGIC_BITS);
        [[unroll]] for (uint k = 0; k < block_fragments; k++) {
          products = coopMatMulAdd(a[i * block_fragments + k], b[k], products);
        }
        const uint sum = i * TOKEN_FRAGMENTS + j;
        [[unroll]] for (uint e = 0; e < ELEMENTS; e++) {
          uint of_row = row_place + i * M + (ROW_PLACES >> 4 * e & 15u);
          uint of_token = token_place + j * N + (TOKEN_PLACES >> 4 * e & 15u);
          float product = intBitsToFloat(products[e]) - MAGIC;
          sums[sum][e] = fma(product, row_scales[of_row] * token_scales[of_token], sums[sum][e]);
#ifdef ROW_MINIMA
          sums[sum][e] = fma(row_minima[of_row], token_sums[of_token], sums[sum][e]);
#endif
        }
      }
    }
  }
}

#include "matrix/walk.glsl"
