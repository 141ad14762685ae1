"""What a token costs through libvkinfer, beside `vkinfer generate` on the same model:

    overhead.py VKINFER PROGRAM MODEL TOKENS ROUNDS

PROGRAM is overhead.c: cc overhead.c $(pkg-config --cflags --libs vkinfer) -o overhead. Both run by turns; for each, the
time of a token from the first to the last, and the processor time of the whole process, which other processes on the
machine change little. The figures are medians of the differences of pairs, with the standard error of their mean.
"""

import json
import os
import statistics
import subprocess
import sys

vkinfer, program, model, tokens, rounds = sys.argv[1:4] + [int(text) for text in sys.argv[4:]]
PROMPT = "The capital of France is"
COMMANDS = {
    "command": [vkinfer, "generate", "-m", model, "-p", PROMPT, "-n", str(tokens), "--ignore-eos", "--json", "--quiet"],
    "library": [program, model, PROMPT, str(tokens)],
}


def run(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise SystemExit(f"{command[0]} failed: {status}")
    report = json.loads(output)
    return 1e6 / report["decode_tokens_per_second"], usage.ru_utime + usage.ru_stime, report


for command in COMMANDS.values():
    run(command)
wall, processor = {name: [] for name in COMMANDS}, {name: [] for name in COMMANDS}
for round in range(rounds):
    reports = {}
    # Who is first changes, too.
    for name in sorted(COMMANDS, reverse=round % 2 == 1):
        token, seconds, reports[name] = run(COMMANDS[name])
        wall[name].append(token)
        processor[name].append(seconds)
    assert reports["library"]["bytes"] == len(reports["command"]["text"].encode()), "the texts differ"


def compare(what, unit, values):
    differences = [one - other for one, other in zip(values["library"], values["command"])]
    usual = statistics.median(values["command"])
    error = statistics.stdev(differences) / len(differences) ** 0.5
    difference = statistics.median(differences)
    print(
        f"{what}: command {usual:.4g} {unit}, library {statistics.median(values['library']):.4g} {unit}; "
        f"difference {difference:+.3g} +- {error:.2g} {unit} ({100 * difference / usual:+.2f} +- {100 * error / usual:.2f} %)"
    )


print(f"{os.path.basename(model)}, {tokens} tokens, {rounds} rounds")
compare("time of a token", "us", wall)
compare("processor time of a run", "s", processor)
