// Push-constant structs and constants, written once: Swift imports this file as C, shaders include it.
//
// A GPU_POINTER is a 64-bit device address to the host and a typed buffer reference to a shader.
// Shaders index references and never add to them, so no device needs 64-bit integers.
#ifndef VKINFER_SHADER_INTERFACE_H
#define VKINFER_SHADER_INTERFACE_H

#ifdef VKINFER_GLSL
#define GPU_POINTER(type) type
#define STRUCT(name) name
#define U32 uint
#define F32 float
// The weight format's file says what its planes are made of.
#ifndef INPUTS
#define INPUTS StageFloats4
#endif
#ifndef PLANE0
#define PLANE0 Quads
#endif
#ifndef PLANE1
#define PLANE1 Words
#endif
#ifndef PLANE2
#define PLANE2 Words
#endif
#ifndef PLANE3
#define PLANE3 Words
#endif
#else
#include <stdint.h>
#define GPU_POINTER(type) uint64_t
#define STRUCT(name) struct name
#define U32 uint32_t
#define F32 float
#endif

// Tokens in one page of the KV cache.
#define KV_PAGE_TOKENS 32u

// What the KV cache holds (specialization constant): see KVCache.
#define CACHE_F16 0u
#define CACHE_Q8_0 1u

// Roles of the linear kernel's epilogue (specialization constant).
#define EPILOGUE_STORE 0u            // outputs[column][row] = value, plain layout (logits)
#define EPILOGUE_RESIDUAL 1u         // outputs[column][row] += value
#define EPILOGUE_GATED 2u            // rows 2i and 2i+1 are gate and up: output[i] = activation(gate) * up
#define EPILOGUE_QKV 3u              // rope, queries out, keys and values into the cache
#define EPILOGUE_QKV_NORM 4u         // the same with per-head norms of queries and keys
#define EPILOGUE_RESIDUAL_NORM 5u    // output += norm(value): the norm spans all rows of a column
#define EPILOGUE_PARTIAL 6u          // scratch = value, in activation layout: an all-reduce takes it from there

// What a stage leaves for the product that reads its outputs (specialization constant): see "Product inputs" in
// ARCHITECTURE.md.
#define NEXT_NONE 0u
#define NEXT_FLOATS 1u               // float32 in activation layout
#define NEXT_BYTES 2u                // blocks of 32 signed bytes with a scale
#define NEXT_HALVES 3u               // float16 rows, for the matrix units

// What an unfused step does to every element (specialization constant).
#define OPERATION_ADD 0u
#define OPERATION_MULTIPLY 1u
#define OPERATION_BIAS 2u            // operand[element], the same for all rows
#define OPERATION_ACTIVATE 3u
#define OPERATION_SOFTCAP 4u         // of logits, which lie in plain order

#define ACTIVATION_SILU 0u
#define ACTIVATION_GELU_TANH 1u

// A weight matrix in device layout: up to four planes (see ARCHITECTURE.md, "Weights on the device").
struct WeightPlanes {
  GPU_POINTER(PLANE0) plane0;
  GPU_POINTER(PLANE1) plane1;
  GPU_POINTER(PLANE2) plane2;
  GPU_POINTER(PLANE3) plane3;
};

// One token of a step. Arrays of these follow the step header.
struct StepRow {
  U32 token;      // the token's id, or TOKEN_FROM_DEVICE: the last one sampled in this sequence slot
  U32 position;   // in its sequence
  U32 sequence;   // sequence slot: which block table, which sampled token
  U32 output_row; // entry i: the row whose logits are output i (i < output_count)
};
#define TOKEN_FROM_DEVICE 0xffffffffu

// A run of consecutive rows of one sequence, processed by one attention workgroup per kv head.
struct AttentionTile {
  U32 first_row;
  U32 row_count;
  U32 sequence;
  U32 first_position;  // of the first row
};

// A link between chained stages: how many workgroups of a stage are done, and how many there are. See
// common/chain.glsl.
#define CHAIN_LINK_WORDS 8u
#define CHAIN_DONE 0u
#define CHAIN_WANTED 1u

// Arguments of the linear kernel: output = epilogue(weights * input / rms).
struct LinearPush {
  STRUCT(WeightPlanes) weights;
  GPU_POINTER(INPUTS) inputs;      // product inputs: float32 in activation layout, or the bytes of blocks
  GPU_POINTER(StagePairs) input_scales;  // of blocks of bytes: scale and scaled sum, two floats
  GPU_POINTER(StageFloats) squares; // [row][square_count]: parts of the sum of squares that the input norm needs
  GPU_POINTER(FloatsOut) outputs;
  GPU_POINTER(FloatsIn) bias;      // [rows]
  GPU_POINTER(Step) step;
  GPU_POINTER(LinearExtras) extras;
  GPU_POINTER(Counters) chain;     // of chained stages: the link before this stage, followed by its own
  U32 columns;                     // inputs of a row (K)
  U32 rows;                        // outputs (of this matrix)
  U32 row_offset;                  // of this matrix's row 0 in the stage's stacked outputs
  U32 output_stride;               // floats between rows of `outputs`
  U32 square_count;
  F32 epsilon;                     // of the input norm
  F32 softcap;                     // 0 for none
};

// Where a stage leaves the inputs of the product that comes next.
struct NextInputs {
  GPU_POINTER(WordsOut) values;    // float32 in activation layout, or the bytes of blocks: [row][padded width]
  GPU_POINTER(FloatsOut) scales;   // of blocks of bytes: scale and scaled sum
  GPU_POINTER(FloatsOut) squares;  // [row][count]: parts of the sum of squares of the residual stream
  GPU_POINTER(FloatsIn) norm;      // weight of the next norm, in activation layout
  U32 width;                       // inputs of a row, padded to whole kilo-inputs
  U32 reserved;
};

// What only some epilogues need: lies in device memory, read late.
struct LinearExtrasData {
  STRUCT(NextInputs) next;
  GPU_POINTER(WordsOut) keys;          // the layer's K pages
  GPU_POINTER(WordsOut) values;        // the layer's V pages
  GPU_POINTER(Words) block_tables;     // [sequence][table_stride] page numbers
  GPU_POINTER(Words) rope;             // two words a pair: turns a token, as a 0.64 fixed-point fraction (high, low)
  GPU_POINTER(FloatsIn) query_norm;    // [head_size], pair order
  GPU_POINTER(FloatsIn) key_norm;      // [head_size], pair order
  GPU_POINTER(FloatsShared) scratch;   // values waiting for a norm
  GPU_POINTER(Counters) counters;      // workgroups done, 0 between dispatches
  GPU_POINTER(FloatsIn) post_norm;     // activation layout
  GPU_POINTER(WordsOut) best;          // [output][workgroup]: largest logit of a workgroup's rows, and its row
  GPU_POINTER(FloatsOut) fresh;        // of a quantised cache, [row][fresh_stride]: new keys, then values
  U32 table_stride;
  U32 head_count;
  U32 kv_head_count;
  U32 head_size;
  U32 rotated_size;
  F32 rope_magnitude;
  F32 norm_epsilon;                    // of the per-head or post norms
  U32 scratch_stride;
  U32 fresh_stride;                    // 0: keys and values go into pages as they are
  U32 reserved;
};

// Arguments of the kernel that quantises new keys and values into pages.
struct CacheWritePush {
  GPU_POINTER(StageFloats4) inputs;    // [row][2 * kv_head_count * head_size]: keys, then values
  GPU_POINTER(WordsShared) keys;       // the layer's K pages
  GPU_POINTER(WordsShared) values;     // the layer's V pages
  GPU_POINTER(Words) block_tables;
  GPU_POINTER(Step) step;
  GPU_POINTER(Counters) chain;         // see LinearPush
  U32 table_stride;
  U32 kv_head_count;
  U32 head_size;                       // a multiple of 32
};

struct EmbedPush {
  STRUCT(WeightPlanes) weights;
  STRUCT(NextInputs) next;
  GPU_POINTER(FloatsOut) outputs;   // the residual stream, activation layout
  GPU_POINTER(Step) step;
  GPU_POINTER(Words) last_tokens;  // [sequence]
  U32 columns;
  U32 output_stride;
  F32 scale;
  U32 vocabulary;                   // rows of the table
  U32 row_interleave;               // rows of the table whose blocks lie side by side: 1 or 8
  U32 first_token;                  // of the first row; tokens that are not among them become 0
};

// Unpacks blocks as the file holds them into planes.
struct RepackPush {
  GPU_POINTER(WordsOut) plane0;
  GPU_POINTER(WordsOut) plane1;
  GPU_POINTER(WordsOut) plane2;
  GPU_POINTER(WordsOut) plane3;
  GPU_POINTER(Words) source;       // the rows as the file holds them, starting at a multiple of 4 bytes
  U32 blocks_per_row;              // of the destination (columns / block size)
  U32 source_blocks_per_row;       // of the rows in `source`
  U32 first_source_block;          // first block taken of each source row (column slices)
  U32 row_count;                   // source rows here
  U32 first_row;                   // index of the first of them within its part
  U32 row_offset;                  // destination row = row_offset + row_stride * order(row)
  U32 row_stride;                  // 1 stacked, 2 interleaved
  U32 pair_head_size;              // 0: order(row) = row; else rows are put in rope pair order within heads of this size
  U32 pair_rotated_size;           // rotated elements of a head
  U32 source_skip;                 // bytes to skip at the start of `source` (0 to 3)
  U32 row_interleave;              // rows whose blocks lie side by side: 1 or 8
};

// Fills memory with random blocks in the layout of a file (see RandomRecipe).
struct RandomPush {
  GPU_POINTER(WordsOut) destination;
  U32 word_count;
  U32 first_block;                 // of the tensor, at the start of `destination`
  U32 seed;
  F32 center;
  F32 width;
  F32 minimum_ratio;
  U32 exponent;
};

// Words between what devices write for one another: no two share a cache line of anyone's.
#define FLAG_WORDS 32u
// Words that the host writes for each step of a device of a mesh.
#define MESH_STEP_WORDS 4u
#define MESH_STEP_BASE 0u            // the count from which the step's own counts go on
#define MESH_STEP_DRAWN 1u           // the count of the device that draws tokens when those that the step needs are there,
#define MESH_STEP_NEEDS_DRAWN 2u     // if it needs any

// What a device of a mesh and the host tell each other while steps run: words in memory that both see.
#define MESH_STATUS_WORDS 4u
#define MESH_STATUS_COUNT 0u         // how far the device is, or was when it last waited for long or ended a step
#define MESH_STATUS_GAVE_UP 1u       // 1 + the device that it waited for in vain, if it has

// A meeting of the ranks of a stage in a step's slot: lies in device memory.
struct MeetingData {
  GPU_POINTER(Counters) flags;       // see ExchangePush
  GPU_POINTER(Counters) step;
  GPU_POINTER(Counters) status;
  GPU_POINTER(Counters) abandoned;
  U32 own;                           // this device
  U32 first;                         // devices that it meets
  U32 count;
  U32 reserved;
};

// Adds up what the ranks of a mesh have left of a residual stream.
struct CombinePush {
  STRUCT(NextInputs) next;
  GPU_POINTER(StageFloats4) parts;   // activation layout, [rank][row], in memory that devices share
  GPU_POINTER(Floats4) own;          // activation layout, [row]: the part of rank `rank`, whatever is in `parts`
  GPU_POINTER(Floats4Shared) residual;  // activation layout
  GPU_POINTER(Floats4) post_norm;    // activation layout
  GPU_POINTER(Step) step;
  GPU_POINTER(Meeting) meeting;      // where the kernel meets the other ranks itself
  U32 width;
  U32 residual_stride;               // floats
  U32 part_stride;                   // floats between rows
  U32 rank_stride;                   // floats between ranks
  U32 own_stride;                    // floats between rows
  U32 rank;                          // none of the ranks: all is in `parts`
  F32 epsilon;                       // of the post norm
  U32 reached;                       // the count of the meeting, above the step's base
};

// Copies rows; sizes are in quads of 16 bytes.
struct RowsPush {
  GPU_POINTER(Quads) source;
  GPU_POINTER(QuadsOut) destination;
  GPU_POINTER(Step) step;
  U32 quads;                         // of a row
  U32 source_stride;
  U32 destination_stride;
  U32 reserved;
};

// Tells other devices how far this one is, and waits for them (Shaders/mesh/exchange.comp). Counts go round at 2^32.
struct ExchangePush {
  GPU_POINTER(Counters) flags;       // [device][slot][line][FLAG_WORDS] in shared memory; the last slot has more lines
  GPU_POINTER(Counters) step;        // MESH_STEP_WORDS words
  GPU_POINTER(Counters) status;      // MESH_STATUS_WORDS words
  GPU_POINTER(Counters) abandoned;   // a word, not 0: the host wants all waits to end
  U32 own;                           // this device
  U32 reached;                       // its count from now on, above the step's base; 0 changes nothing
  U32 first;                         // devices that it waits for
  U32 count;
  U32 wanted;                        // their count, above the step's base; 0: the count in MESH_STEP_DRAWN
  U32 reports;                       // not 0: the host is told the own count
  U32 own_slot;                      // where its own count is left, and where theirs is
  U32 wanted_slot;
};

// What devices have left, added up (Shaders/mesh/sum.comp); sizes are in quads of 16 bytes.
struct SumPush {
  GPU_POINTER(Floats4) parts;        // [rank][rank_stride] in shared memory
  GPU_POINTER(Floats4) own;          // this device's own part, in its own memory
  GPU_POINTER(Floats4Out) sum;
  GPU_POINTER(Floats4Out) copy;      // the sum once more, where `copies` is not 0
  U32 quads;
  U32 rank_stride;
  U32 first;                         // ranks whose parts are added, in this order
  U32 count;
  U32 rank;                          // whose part is `own`
  U32 copies;
};

// What the microbenchmarks read and write (Shaders/bench).
struct TransferPush {
  GPU_POINTER(Quads) source;
  GPU_POINTER(QuadsOut) destination;
};

struct AttentionPush {
  GPU_POINTER(StageFloats) queries;    // [row][head][head_size], pair order, f32
  GPU_POINTER(StageQuads) keys;        // the layer's K pages
  GPU_POINTER(StageQuads) values;      // the layer's V pages
  GPU_POINTER(Words) block_tables;
  GPU_POINTER(Step) step;
  GPU_POINTER(Tiles) tiles;
  GPU_POINTER(WordsOut) outputs;        // product inputs of the output projection: [row][output_width]
  GPU_POINTER(FloatsOut) output_scales; // of blocks of bytes
  GPU_POINTER(FloatsShared) partials;  // split results
  GPU_POINTER(Counters) counters;
  GPU_POINTER(Counters) chain;         // see LinearPush
  U32 table_stride;
  U32 head_count;
  U32 kv_head_count;
  U32 output_width;                    // padded
  U32 window;                          // 0: none
  F32 scale;
  F32 softcap;                         // 0: none
};

// Arguments of the kernel that tries whether stages can be chained on a device.
struct ChainProbePush {
  GPU_POINTER(Counters) chain;
  GPU_POINTER(Step) step;
  GPU_POINTER(StageWords) inputs;
  GPU_POINTER(WordsOut) outputs;
  U32 shift;                       // of the inputs against the outputs
};

// Elements of A, and as many of B, that an invocation tells of; and where the numbers of those that it has stand.
#define FRAGMENT_PROBE_ELEMENTS 32u
#define FRAGMENT_PROBE_LENGTHS 4096u

// Arguments of the kernel that tells where the elements of fragments lie.
struct FragmentProbePush {
  GPU_POINTER(WordsOut) elements;  // [invocation][A, B][element], then the lengths
};

// How one output's token is chosen. temperature 0 is greedy.
struct SampleParameters {
  F32 temperature;
  F32 top_p;               // 1 keeps all
  F32 min_p;               // 0 keeps all
  F32 repeat_penalty;      // 1 for none
  F32 presence_penalty;
  F32 frequency_penalty;
  U32 top_k;               // 0 keeps all
  U32 sequence;            // slot whose counts and last token are used
  U32 seed_low;
  U32 seed_high;
  U32 position;            // of the token to be drawn: with the seed it determines the random number
  U32 target;              // score kernel: the token whose log-probability is wanted
};

struct SamplePush {
  GPU_POINTER(FloatsShared) logits;    // [output][logits_stride]; penalties are applied in place
  GPU_POINTER(Step) step;
  GPU_POINTER(Samples) parameters;     // [output]
  GPU_POINTER(WordsShared) counts;     // [sequence][vocabulary]: times generated, top bit: in the prompt
  GPU_POINTER(WordsOut) last_tokens;   // [sequence]
  GPU_POINTER(WordsOut) results;       // [output] token ids (sample) or log-probabilities as bits (score)
  GPU_POINTER(Pairs) best;             // [output][best_count] largest logits and their tokens
  U32 vocabulary;
  U32 logits_stride;
  U32 best_count;
};

// The feed-forward hidden vector is kept in float16 times this, so that large ones stay finite; the next product
// multiplies by the inverse.
#define HIDDEN_SCALE 0.015625f

// Arguments of the matrix kernel: outputs = epilogue(scale * weights * inputs) for many tokens.
struct MatrixPush {
  STRUCT(WeightPlanes) weights;
  GPU_POINTER(Quads) inputs;        // float16 or bytes, [token][input_stride]
  GPU_POINTER(Pairs) input_scales;  // of blocks of 32 bytes: scale and scaled sum, two floats
  GPU_POINTER(FloatsOut) outputs;   // gated: pairs of float16 as words; else float32
  GPU_POINTER(FloatsIn) bias;       // [rows]
  GPU_POINTER(Step) step;
  GPU_POINTER(LinearExtras) extras;
  GPU_POINTER(FloatsShared) partials; // sums of workgroups that share the inputs of a tile
  GPU_POINTER(Counters) counters;   // workgroups done, 0 between dispatches
  U32 columns;                      // inputs of a row (K), a multiple of 32
  U32 rows;                         // outputs (of this matrix)
  U32 row_offset;                   // of this matrix's row 0 in the stage's stacked outputs
  U32 input_stride;                 // elements between tokens of `inputs`, a multiple of 8; of bytes, of 32
  U32 output_stride;                // elements between tokens of `outputs`
  F32 scale;                        // of the products
  F32 softcap;                      // 0 for none
};

// Arguments of flash attention. A tile has at most as many tokens as a workgroup takes queries.
struct FlashPush {
  GPU_POINTER(Floats4) queries;        // [row][head][head_size], pair order, float32
  GPU_POINTER(Quads) keys;             // the layer's K pages
  GPU_POINTER(Quads) values;           // the layer's V pages
  GPU_POINTER(Words) block_tables;
  GPU_POINTER(Step) step;
  GPU_POINTER(Tiles) tiles;
  GPU_POINTER(QuadsOut) outputs;       // float16, [row][output_stride]
  U32 table_stride;
  U32 head_count;
  U32 kv_head_count;
  U32 output_stride;                   // elements, a multiple of 8
  U32 window;                          // 0: none
  F32 scale;
  F32 softcap;                         // 0: none
};

// Arguments of the kernel that makes float16 rows of a quantised matrix.
struct DequantizePush {
  STRUCT(WeightPlanes) weights;
  GPU_POINTER(QuadsOut) outputs;
  U32 first_chunk;
  U32 chunk_count;
};

// Arguments of the kernel that makes blocks of bytes of float16 rows.
struct QuantiseRowsPush {
  GPU_POINTER(Quads) inputs;           // float16, [row][input_stride]
  GPU_POINTER(QuadsOut) outputs;       // bytes, [row][output_stride]
  GPU_POINTER(FloatsOut) scales;       // [row][output_stride / 32]: scale and scaled sum
  U32 blocks;                          // of a row
  U32 input_stride;                    // elements, a multiple of 8
  U32 output_stride;                   // elements, a multiple of 32
};

// Arguments of the kernel that makes the inputs of matrix products: norm(inputs), as float16.
struct NormalisePush {
  GPU_POINTER(Floats4Out) inputs;      // activation layout, [row][input_stride]
  GPU_POINTER(QuadsOut) outputs;       // float16, [row][output_stride]
  GPU_POINTER(Floats4) norm;           // activation layout
  GPU_POINTER(Step) step;
  GPU_POINTER(Floats4) addend;         // activation layout: its norm is added to the inputs first
  GPU_POINTER(Floats4) addend_norm;    // activation layout
  U32 width;                           // a multiple of 32
  U32 input_stride;                    // elements
  U32 output_stride;                   // elements, a multiple of 8
  U32 addend_stride;                   // elements
  F32 epsilon;
  F32 addend_epsilon;
};

// Arguments of the kernel that finishes heads with norms of their own: extras.scratch holds their products.
struct HeadNormPush {
  GPU_POINTER(FloatsOut) outputs;      // queries, [row][output_stride]
  GPU_POINTER(Step) step;
  GPU_POINTER(LinearExtras) extras;
  U32 output_stride;
};

// Arguments of the operations of an unfused step: outputs = f(inputs, operand), in activation layout; outputs may be
// inputs.
struct OperationPush {
  GPU_POINTER(Floats) inputs;          // [row][input_stride], from element input_first on
  GPU_POINTER(Floats) operand;         // the same of another array; of a norm or bias its weights
  GPU_POINTER(Floats) outputs;
  GPU_POINTER(Step) step;
  U32 width;                           // elements
  U32 input_stride;
  U32 input_first;
  U32 operand_stride;
  U32 operand_first;
  U32 output_stride;
  U32 output_first;
  F32 parameter;                       // epsilon of a norm, softcap of logits
};

// Arguments of the kernel that finishes some heads of an unfused step: extras.scratch holds their products.
struct HeadsPush {
  GPU_POINTER(FloatsOut) outputs;      // queries, [row][output_stride]
  GPU_POINTER(Step) step;
  GPU_POINTER(LinearExtras) extras;
  U32 output_stride;
  U32 first_head;                      // among those of Q|K|V
  U32 head_count;
};

// Arguments of the kernel that makes blocks of bytes of the inputs of an unfused step's products.
struct QuantisePush {
  GPU_POINTER(FloatsIn) inputs;        // activation layout, [row][stride]
  GPU_POINTER(WordsOut) outputs;       // the bytes of blocks
  GPU_POINTER(FloatsOut) scales;
  GPU_POINTER(Step) step;
  U32 blocks;                          // of a row
  U32 stride;                          // inputs of a row, padded to whole kilo-inputs
};

#endif
