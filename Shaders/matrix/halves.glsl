// Weights as float16, two to a word.
#if defined(SCALED) || defined(HALVES)
// With a minimum, integers are counted from the middle of their range: they are smaller then and the minimum is near
// nothing, so that little is lost where float16 rounds either; in q4_0 and q5_0 the minimum is gone.
#if defined(NIBBLES)
#define MIDDLE 8u
#elif defined(SCALED) && defined(MINIMUM)
#define MIDDLE 16u
#elif defined(FORMAT_Q2_K)
#define MIDDLE 2u
#else
#define MIDDLE 0u
#endif

// Four bytes of a word as float16, exactly: 1024 and more have units of one, so a byte is the low bits of 1024 + it.
void bytes_to_halves(uint word, out f16vec2 even, out f16vec2 odd) {
#ifdef SIGNED
  word ^= 0x80808080u;
  const float16_t zero = float16_t(1024 + 128);
#elif defined(OFFSET)
  const float16_t zero = float16_t(1024 + OFFSET);
#else
  const float16_t zero = float16_t(1024 + MIDDLE);
#endif
  even = unpackFloat2x16((word & 0x00ff00ffu) | 0x64006400u) - f16vec2(zero);
  odd = unpackFloat2x16(((word >> 8) & 0x00ff00ffu) | 0x64006400u) - f16vec2(zero);
}

// Small integers times their scale, in float16: as exact as the result where the scale is a float16 itself and there is
// no minimum.
void unpack_halves(Chunk chunk, out uint halves[CHUNK / 2]) {
#ifdef HALVES
  f16vec2 scales = f16vec2(half_scales(chunk));
#ifdef HALF_MINIMA
  f16vec2 minima = f16vec2(half_minima(chunk) + float(MIDDLE) * half_scales(chunk));
#endif
#else
  vec2 scale = chunk_scale(chunk);
  f16vec2 scales = f16vec2(scale.xx);
#ifdef MINIMUM
  f16vec2 minima = f16vec2(fma(scale.xx, vec2(MIDDLE), scale.yy));
#endif
#endif
  uint words[CHUNK / 4];
  unpack_words(chunk, words);
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
    f16vec2 even, odd;
    bytes_to_halves(words[j], even, odd);
#if defined(MINIMUM) || defined(HALF_MINIMA)
    even = fma(even, f16vec2(scales[j / 4]), f16vec2(minima[j / 4]));
    odd = fma(odd, f16vec2(scales[j / 4]), f16vec2(minima[j / 4]));
#else
    even *= scales[j / 4];
    odd *= scales[j / 4];
#endif
    halves[2 * j] = packFloat2x16(f16vec2(even.x, odd.x));
    halves[2 * j + 1] = packFloat2x16(f16vec2(even.y, odd.y));
  }
}
#elif defined(FORMAT_F16)
void unpack_halves(Chunk chunk, out uint halves[CHUNK / 2]) {
  [[unroll]] for (uint j = 0; j < 4; j++) halves[j] = chunk.halves[j];
}
#else
void unpack_halves(Chunk chunk, out uint halves[CHUNK / 2]) {
  vec4 w[CHUNK / 4];
  unpack_chunk(chunk, w);
  [[unroll]] for (uint j = 0; j < CHUNK / 4; j++) {
#if defined(FORMAT_F32) || defined(FORMAT_BF16)
    // Only these hold weights that float16 does not.
    w[j] = clamp(w[j], vec4(-65504.0), vec4(65504.0));
#endif
    halves[2 * j] = packHalf2x16(w[j].xy);
    halves[2 * j + 1] = packHalf2x16(w[j].zw);
  }
}
#endif
