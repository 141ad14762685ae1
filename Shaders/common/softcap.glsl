// cap * tanh(x / cap). The argument is kept where tanh differs from 1: of large ones some devices make no number.
float softcapped(float x, float cap) { return cap * tanh(clamp(x / cap, -15.0, 15.0)); }
vec2 softcapped(vec2 x, float cap) { return cap * tanh(clamp(x / cap, -15.0, 15.0)); }
vec4 softcapped(vec4 x, float cap) { return cap * tanh(clamp(x / cap, -15.0, 15.0)); }
