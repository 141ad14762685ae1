// What every kernel may ask of a chunk, whatever its format.
//
// A format whose chunk has one scale defines SCALED and gives `unpack_quants` and `chunk_scale`: w = q * scale, plus
// a minimum where it defines MINIMUM too. Products then apply the scale once a chunk instead of once a weight.
// (The levels of iq4 take the registers that this needs: some AMD devices would spill.)
#ifdef SCALED
void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  vec2 scale = chunk_scale(chunk);
  unpack_quants(chunk, w);
#ifdef MINIMUM
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) w[j] = fma(w[j], vec4(scale.x), vec4(scale.y));
#else
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) w[j] *= scale.x;
#endif
}
#endif
