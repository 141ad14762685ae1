#version 460
// outputs = epilogue(weights * inputs) for many tokens at once, on the matrix units, in float16: weights are made float16
// on the way into shared memory.
//! formats: all
//! needs: GL_KHR_cooperative_matrix
#include FORMAT_FILE
#include "common/types.glsl"
#include "common/bytes.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(push_constant) uniform Push { MatrixPush push; };

#define FORMAT_KERNEL
#include FORMAT_FILE
#include "common/chunk.glsl"

#define INPUT_BYTES 2
#include "matrix/tile.glsl"
#include "matrix/halves.glsl"

#define ACCUMULATOR coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
ACCUMULATOR sums[ROW_FRAGMENTS * TOKEN_FRAGMENTS];

void clear_sums() {
  [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS * TOKEN_FRAGMENTS; i++) sums[i] = ACCUMULATOR(0);
}
void begin_sums() { clear_sums(); }
ACCUMULATOR sum_fragment(uint i) { return sums[i]; }
void add_sums(uint i, ACCUMULATOR other) { sums[i] += other; }

void store_weights(Chunk chunk, uint row, uint index) {
  uint halves[CHUNK / 2];
  unpack_halves(chunk, halves);
  uint at = row * STRIDE;
#ifdef FORMAT_F32
  // Half a quad: the other half is another chunk's.
  tile[at + index / 2][index % 2 * 2] = halves[0];
  tile[at + index / 2][index % 2 * 2 + 1] = halves[1];
#else
  [[unroll]] for (uint j = 0; j < CHUNK / 8; j++) {
    store_quad(
        at, index * (CHUNK / 8) + j, uvec4(halves[4 * j], halves[4 * j + 1], halves[4 * j + 2], halves[4 * j + 3]));
  }
#endif
}

void multiply_step(uint row, uint token) {
  uint row_quad = row * STRIDE;
  uint token_quad = FIRST_TOKEN_QUAD + token * STRIDE;
  [[unroll]] for (uint k = 0; k < STEP / K; k++) {
    uint at = k * FRAGMENT_QUADS;
    coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[ROW_FRAGMENTS];
    [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
      coopMatLoad(a[i], tile, row_quad + i * M * STRIDE + at, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
    }
    [[unroll]] for (uint j = 0; j < TOKEN_FRAGMENTS; j++) {
      coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
      coopMatLoad(b, tile, token_quad + j * N * STRIDE + at, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
      [[unroll]] for (uint i = 0; i < ROW_FRAGMENTS; i++) {
        sums[i * TOKEN_FRAGMENTS + j] = coopMatMulAdd(a[i], b, sums[i * TOKEN_FRAGMENTS + j]);
      }
    }
  }
}

#include "matrix/walk.glsl"
