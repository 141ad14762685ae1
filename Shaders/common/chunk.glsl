// What every kernel may ask of a chunk, whatever its format.
//
// A format of small integers gives them as bytes, four to a word (`unpack_words`), and what they are multiplied by:
// - SCALED: one scale a chunk (`chunk_scale`), w = q * scale, plus a minimum where it defines MINIMUM too. Products
//   then apply the scale once a chunk instead of once a weight. The bytes are signed where it defines SIGNED. Where it
//   defines NIBBLES, they are the low nibbles of `quants`, then the high ones.
// - HALVES: a scale for each half of a chunk of 32 (`half_scales`), w = (q - OFFSET) * scale, or plus a minimum of
//   its own (`half_minima`) where it defines HALF_MINIMA.
// Any other format gives floats (`unpack_chunk`).
#ifdef SCALED
// The chunk's part of a product, but for its scale.
void unpack_quants(Chunk chunk, out vec4 q[CHUNK / 4]) {
  uint words[CHUNK / 4];
  unpack_words(chunk, words);
#ifdef SIGNED
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) q[j] = signed_bytes_to_floats(words[j]);
#else
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) q[j] = bytes_to_floats(words[j]);
#endif
}

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

#ifdef HALVES
void unpack_chunk(Chunk chunk, out vec4 w[CHUNK / 4]) {
  vec2 scales = half_scales(chunk);
#ifdef HALF_MINIMA
  vec2 minima = half_minima(chunk);
#else
  vec2 minima = -float(OFFSET) * scales;
#endif
  uint words[CHUNK / 4];
  unpack_words(chunk, words);
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
    w[j] = fma(bytes_to_floats(words[j]), vec4(scales[j / 4]), vec4(minima[j / 4]));
  }
}
#endif
