// Extensions, buffer-reference types and the shared structs: included first by every shader.
//
// Shaders that define CHAINED may run before the stage whose outputs they read is done (common/chain.glsl): what
// stages hand on is then subject to the Vulkan memory model, by which a wait for a stage makes its writes visible.
#ifdef CHAINED
#pragma use_vulkan_memory_model
#extension GL_KHR_memory_scope_semantics : require
#define STAGE_INPUT nonprivate
#define STAGE_OUTPUT nonprivate restrict
#else
#define STAGE_INPUT readonly restrict
#define STAGE_OUTPUT restrict
#endif
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_GOOGLE_include_directive : require

// Drivers that load lane by lane load 64 bits as fast as 32: shaders that define WIDE_LOADS do so where it counts.
#ifdef WIDE_LOADS
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
layout(buffer_reference, std430, buffer_reference_align = 16) readonly restrict buffer Quads { u64vec2 at[]; };
uvec4 words_of(u64vec2 wide) { return uvec4(unpackUint2x32(wide.x), unpackUint2x32(wide.y)); }
#define QUAD_AT(quads, index) words_of((quads).at[index])
#else
layout(buffer_reference, std430, buffer_reference_align = 16) readonly restrict buffer Quads { uvec4 at[]; };
#define QUAD_AT(quads, index) (quads).at[index]
#endif
layout(buffer_reference, std430, buffer_reference_align = 8) readonly restrict buffer Pairs { uvec2 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly restrict buffer Words { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly restrict buffer Floats4 { vec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly restrict buffer FloatsIn { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) STAGE_OUTPUT buffer FloatsOut { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) STAGE_OUTPUT buffer WordsOut { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) STAGE_OUTPUT buffer QuadsOut { uvec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) STAGE_OUTPUT buffer Floats4Out { vec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) STAGE_INPUT buffer StageQuads { uvec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) STAGE_INPUT buffer StageFloats4 { vec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) STAGE_INPUT buffer StagePairs { uvec2 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) STAGE_INPUT buffer StageFloats { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) STAGE_INPUT buffer StageWords { uint at[]; };
// Read and written in place.
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Floats { float at[]; };
// Read by an invocation other than the one that wrote, within one dispatch.
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer Floats4Shared { vec4 at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer FloatsShared { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer WordsShared { uint at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer Counters { uint at[]; };

layout(buffer_reference) buffer Step;
layout(buffer_reference) readonly buffer Tiles;
layout(buffer_reference) readonly buffer Samples;
layout(buffer_reference) readonly buffer LinearExtras;
layout(buffer_reference) readonly buffer Meeting;

#define VKINFER_GLSL
#include "shader_interface.h"

layout(buffer_reference, std430, buffer_reference_align = 16) buffer Step {
  readonly uint row_count;
  readonly uint output_count;
  readonly uint tile_count;
  coherent uint abandoned;  // where a chained stage says that it gave up waiting
  readonly StepRow rows[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Tiles { AttentionTile at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Samples { SampleParameters at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer LinearExtras { LinearExtrasData data; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Meeting { MeetingData data; };

// Activations are stored so that lanes which hold neighbouring chunks of 4 to 32 inputs read whole cache lines:
// within each 1024 inputs, quad j of every chunk of 32 comes before quad j + 1 of any.
uint activation_index(uint k) {
  return (k & ~1023u) | (((k >> 2) & 7u) << 7) | (((k >> 5) & 31u) << 2) | (k & 3u);
}

// The same for the quad (4 inputs) that starts at input 4 * quad, in quads.
uint activation_quad(uint quad) {
  return (quad & ~255u) | ((quad & 7u) << 5) | ((quad >> 3) & 31u);
}
