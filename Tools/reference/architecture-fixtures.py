#!/usr/bin/env python3
"""Makes a small random model of each architecture, as a GGUF file and with transformers' logits for it.

    pip install torch transformers gguf       (the CPU build of torch is enough)
    Tools/reference/architecture-fixtures.py [FOLDER, by default Tests/ReferenceTests/Fixtures]

For each model NAME, NAME.gguf holds it in float32 by GGUF's conventions (llama: rows of q and k permuted so that rope
pairs are adjacent; gemma: the norms' 1 added to the weights) and NAME.json holds
{"tokens": [...], "logits": [[... for each token of the vocabulary] ... for each position]}.
Sizes are chosen so that nothing is trivial: windows shorter than the prompt, rope scaling that starts within it, heads
whose sizes do not sum to the width, norms that are not 1.
"""

import json
import math
import pathlib
import sys

import gguf
import numpy
import torch
import transformers

TOKEN_COUNT = 24
VOCABULARY = 96


def common(**more):
    return dict(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, intermediate_size=96, max_position_embeddings=128, attn_implementation="eager",
        pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False) | more


LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16,
            beta_fast=8.0, beta_slow=1.0)

# Name of the fixture, GGUF architecture, configuration.
MODELS = [
    ("llama", "llama", transformers.LlamaConfig(**common(rope_parameters=LLAMA3))),
    ("mistral", "llama", transformers.MistralConfig(**common(num_attention_heads=6, intermediate_size=64, sliding_window=7))),
    ("qwen2", "qwen2", transformers.Qwen2Config(**common(max_position_embeddings=64, rope_parameters=YARN))),
    ("qwen3", "qwen3", transformers.Qwen3Config(**common(
        num_attention_heads=3, num_key_value_heads=1, head_dim=32, intermediate_size=64, tie_word_embeddings=True))),
    ("gemma3", "gemma3", transformers.Gemma3TextConfig(**common(
        hidden_size=32, num_hidden_layers=7, num_key_value_heads=1, intermediate_size=32, tie_word_embeddings=True,
        query_pre_attn_scalar=16, sliding_window=5, final_logit_softcapping=4.0, attn_logit_softcapping=3.0,
        rope_parameters={
            "full_attention": dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
            "sliding_attention": dict(rope_type="default", rope_theta=10000.0)}))),
]

# transformers' names to GGUF's, for a layer.
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
PRE_NORM_NAMES = {"post_attention_layernorm": "ffn_norm"}
POST_NORM_NAMES = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
OUTER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name, architecture):
    stem, kind = name.rsplit(".", 1)
    if stem in OUTER_NAMES:
        return f"{OUTER_NAMES[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    names = LAYER_NAMES | (POST_NORM_NAMES if architecture == "gemma3" else PRE_NORM_NAMES)
    return f"blk.{layer}.{names[rest]}.{kind}"


def randomise(model, architecture, generator):
    """Weights wide enough that attention is far from uniform; norms and biases far from 1 and 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_((0.0 if architecture == "gemma3" else 1.0) + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * 1.5 / math.sqrt(parameter.shape[1]))


def permuted(rows, head_count):
    """Rows of each head reordered from halves to adjacent pairs: 0, n/2, 1, n/2 + 1, ..."""
    return rows.reshape(head_count, 2, rows.shape[0] // head_count // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(config):
    """What Llama 3.1's scaling divides the frequency of each rope pair by."""
    rope = config.rope_parameters
    context = rope["original_max_position_embeddings"]
    factors = []
    for pair in range(config.head_dim // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * pair / config.head_dim)
        smooth = (context / wavelength - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return numpy.array(factors, dtype=numpy.float32)


def write(path, model, architecture, config):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture == "llama":
        writer.add_rope_dimension_count(config.head_dim)

    rope = config.rope_parameters
    windowed = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if windowed:
        writer.add_rope_freq_base_swa(windowed["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    elif rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    if architecture in ("llama", "gemma3") and getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)

    for name, parameter in model.named_parameters():
        data = parameter.detach().numpy()
        if architecture == "llama" and ".q_proj." in name:
            data = permuted(data, config.num_attention_heads)
        if architecture == "llama" and ".k_proj." in name:
            data = permuted(data, config.num_key_value_heads)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            data = data + numpy.float32(1)
        writer.add_tensor(gguf_name(name, architecture), numpy.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    here = pathlib.Path(__file__).resolve().parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parents[1] / "Tests/ReferenceTests/Fixtures"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, architecture, config) in enumerate(MODELS):
        generator = torch.Generator().manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        randomise(model, architecture, generator)
        tokens = torch.randint(0, VOCABULARY, (TOKEN_COUNT,), generator=generator)
        with torch.no_grad():
            # Gemma 3's code leaves its attention's soft-capping, which no released model uses, to the caller.
            softcap = getattr(config, "attn_logit_softcapping", None)
            logits = model(tokens[None], **({"softcap": softcap} if softcap else {})).logits[0]
        path = folder / f"{name}.gguf"
        write(path, model, architecture, config)
        rows = [[float(f"{value:.8g}") for value in row] for row in logits.tolist()]
        (folder / f"{name}.json").write_text(json.dumps({"tokens": tokens.tolist(), "logits": rows}) + "\n")
        print(f"{path}: {path.stat().st_size} bytes, logits up to {logits.abs().max():.2f}")


main()
