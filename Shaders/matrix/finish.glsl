// What happens to the matrix kernel's sums: through shared memory, where each subgroup puts a fragment along tokens at
// a time, to four rows of a token in a lane.
#include "matrix/finish_quad.glsl"

const uint ROW_QUADS = ROW_FRAGMENTS * M / 4;
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
              sum_fragment(i * TOKEN_FRAGMENTS + constant_j), tile, sum_quad + i * M / 4, SUM_STRIDE,
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
