// Scales of q4_k and q5_k, from the file's 16 bytes at `source` to the words that scale_and_minimum reads.
// The file has 6 bits each in 12 bytes: of the first four blocks, scales in four bytes and minima in the next four; of
// the others, low nibbles together in the last four, and the upper bits of both above those of the first four.
uvec4 repacked_scales(uint source) {
  uvec4 file = uvec4(source_word(source), source_word(source + 4), source_word(source + 8), source_word(source + 12));
  uvec4 words = uvec4(file.x, 0, 0, 0);
  for (uint i = 0; i < 8; i++) {
    uint shift = (i & 3u) * 8;
    uint a = file.y >> shift;
    uint b = file.z >> shift;
    uint c = file.w >> shift;
    uint scale = i < 4 ? a & 63u : (c & 15u) | ((a >> 2) & 48u);
    uint minimum = i < 4 ? b & 63u : ((c >> 4) & 15u) | ((b >> 2) & 48u);
    uint low = ((scale & 15u) | ((minimum & 15u) << 4)) << shift;
    if (i < 4) words.y |= low; else words.z |= low;
    words.w |= ((scale >> 4) | ((minimum >> 4) << 2)) << (4 * i);
  }
  return words;
}
