// How the linear kernel cuts its work, and its arguments.
#include "common/types.glsl"
#include "common/bytes.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SUBGROUPS = 4;
layout(constant_id = 2) const uint SPLIT = 1;
layout(constant_id = 3) const uint ROWS = 4;
layout(constant_id = 4) const uint COLUMNS = 1;
layout(constant_id = 5) const uint UNROLL = 1;  // chunks of a row whose loads are under way at once
layout(constant_id = 6) const uint EPILOGUE = EPILOGUE_STORE;
layout(constant_id = 7) const bool NORM = false;
layout(constant_id = 8) const bool BIAS = false;
layout(constant_id = 9) const bool GATHER = false;  // column i is the step's i-th output row
layout(constant_id = 10) const uint ACTIVATION = ACTIVATION_SILU;
layout(constant_id = 11) const uint NEXT = NEXT_NONE;
layout(constant_id = 12) const bool CHAIN = false;
layout(constant_id = 13) const uint STAGED = 0;  // quads of inputs that a workgroup keeps: all of a single column, or none

layout(push_constant) uniform Push { LinearPush push; };
