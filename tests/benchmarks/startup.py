"""How long people wait: for a help page, for the shell's completion, and for the first token.

    python tests/benchmarks/startup.py [--model DIR_OR_NAME] [--precision auto] [--repeats 7]

Prints medians of processes started in turn, and of ratios of two that ran one after the other. `first_token` is a run
whose loops are compiled and whose weights are packed; `first_run` compiles the loops. Needs a model that is on disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict

COMPLETION = {"_GPT2_COMPLETE": "complete_bash", "COMP_WORDS": "gpt2 generate --mo", "COMP_CWORD": "2"}


def seconds(*command: str, **variables: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env=os.environ | variables)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    options = ("--model", args.model, "--precision", args.precision, "--device", "cpu", "--offline", "--quiet")
    generate = ("-m", "gpt2cli", "generate", "Once", "-n", "1", *options)
    seconds(*generate)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(args.repeats):
        help_page, libraries = seconds("-m", "gpt2cli", "--help"), seconds("-c", "import typer, rich")
        torch, token = seconds("-c", "import torch"), seconds(*generate)
        with tempfile.TemporaryDirectory() as cache:
            first = seconds(*generate, GPT2CLI_CACHE=cache)
        measured = {
            "help_s": help_page,
            "help_over_typer_and_rich": help_page / libraries,
            "version_s": seconds("-m", "gpt2cli", "--version"),
            "completion_s": seconds("-m", "gpt2cli", **COMPLETION),
            "import_torch_s": torch,
            "first_token_s": token,
            "first_token_over_torch": token / torch,
            "first_run_s": first,
            "first_run_over_torch": first / torch,
        }
        for name, value in measured.items():
            found[name].append(value)
    print(json.dumps({name: round(statistics.median(times), 3) for name, times in found.items()}))


if __name__ == "__main__":
    main()
