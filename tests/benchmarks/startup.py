"""How long people wait: for a help page, for the shell's completion, and for the first token beyond `import torch`.

    python tests/benchmarks/startup.py --model DIR_OR_NAME [--repeats 7]

Prints medians of processes started in turn. Needs a model that is on disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

FIRST_TOKEN = """
import sys, time
begin = time.perf_counter()
import torch
imported = time.perf_counter()
from gpt2cli.__main__ import main
class Clock:
    encoding, errors = "utf-8", "strict"
    def reconfigure(self, **options): pass
    def isatty(self): return False
    def flush(self): pass
    def write(self, text):
        if text and text != sys.argv[2]:
            print(imported - begin, time.perf_counter() - imported, file=sys.stderr)
            sys.exit(0)
sys.stdout = Clock()
main()
"""


COMPLETION = {"_GPT2_COMPLETE": "complete_bash", "COMP_WORDS": "gpt2 generate --mo", "COMP_CWORD": "2"}


def seconds(*command: str, **variables: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env=os.environ | variables)
    return time.perf_counter() - start


def first_token(model: str) -> tuple[float, float]:
    """Seconds for `import torch`, and from there to the first token on stdout."""
    args = ["generate", "The meaning of life is", "--model", model, "--precision", "fp32", "--offline"]
    done = subprocess.run([sys.executable, "-c", FIRST_TOKEN, *args], check=True, capture_output=True, text=True)
    imported, token = done.stderr.split()
    return float(imported), float(token)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    found: dict[str, list[float]] = {
        "help_s": [],
        "version_s": [],
        "completion_s": [],
        "help_over_typer_and_rich": [],
        "import_torch_s": [],
        "first_token_beyond_torch_s": [],
    }
    for _ in range(args.repeats):
        found["help_s"].append(seconds("-m", "gpt2cli", "--help"))
        found["help_over_typer_and_rich"].append(found["help_s"][-1] / seconds("-c", "import typer, rich"))
        found["version_s"].append(seconds("-m", "gpt2cli", "--version"))
        found["completion_s"].append(seconds("-m", "gpt2cli", **COMPLETION))
        imported, token = first_token(args.model)
        found["import_torch_s"].append(imported)
        found["first_token_beyond_torch_s"].append(token)
    print(json.dumps({name: round(statistics.median(times), 3) for name, times in found.items()}))


if __name__ == "__main__":
    main()
