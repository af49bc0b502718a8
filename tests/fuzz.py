"""Open thousands of damaged and hostile files, and see that each opens or is refused as it should be.

    python tests/fuzz.py [--seed 1] [--mutants 2000] [--kinds pt,gguf] [--only KIND:NUMBER]

Mutants of checkpoints, adapters, configs, indexes, runs and prepared data are opened by the public functions, in a
process that is started anew when it dies. A violation is an exception other than GPT2Error, a warning, an error message
of thousands of characters, more memory than three times the file's size and 300 MB, more than 2 seconds of CPU time, or
no answer. Prints a line a violation and a table; exits with 1 if there was any. Needs Linux. Whatever a mutant is
follows from the seed, its kind and its number; with --only it is made again, opened, and kept.
"""

import argparse
import json
import random
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fuzzing.mutations import Mutation, change_json, change_lines, change_safetensors, cut, flip, overwrite
from tests.fuzzing.pt_mutations import change_archive, change_pickles, change_pt
from tests.fuzzing.seeds import KINDS

ROOT = Path(__file__).parent.parent
MEMORY = 300 * 2**20
SECONDS = 2.0
PATIENCE = 30.0
"""Seconds to wait for an answer: the machine may be busy with other things."""


class Worker:
    """A process that opens mutants, started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def open(self, kind: str, work: Path) -> dict[str, Any]:
        """What came of it, or what the process died of, in `problem`."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.fuzzing.worker"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"kind": kind, "work": str(work)}) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.close()
        problem = "the process died" if ready else f"no answer in {PATIENCE:.0f} seconds"
        return {"opened": False, "problem": problem, "memory": 0, "seconds": 0.0}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def mutations_of(file: str) -> tuple[Mutation, ...]:
    """The changes that suit a file of this name."""
    general: tuple[Mutation, ...] = (flip, overwrite, cut)
    if file.endswith(".json"):
        return (change_json, change_json, change_json, *general)
    if file.endswith(".jsonl"):
        return (change_lines, change_lines, *general)
    if file.endswith(".safetensors"):
        return (change_safetensors, change_safetensors, change_safetensors, *general)
    if file.endswith(".pt"):
        return (change_pt, change_pt, change_archive, *general)
    if file.endswith(".pkl"):
        return (change_pt, change_pt, change_pickles, change_pickles, *general)
    return (flip, overwrite, overwrite, cut)


def make_mutant(whole: Path, work: Path, kind: str, seed: int, number: int) -> str:
    """Copy the whole files of a kind to `work` with one of them changed. Returns how."""
    choose = random.Random(f"{seed}:{kind}:{number}")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(whole, work)
    file = choose.choice(KINDS[kind][1])
    mutation = choose.choice(mutations_of(file))
    (work / file).write_bytes(mutation((work / file).read_bytes(), choose))
    return f"{mutation.__name__} of {file}"


def violation(answer: dict[str, Any], size: int) -> str | None:
    """What is wrong with how a mutant was opened or refused, in words; None if nothing is."""
    if answer["problem"]:
        return str(answer["problem"])
    if answer["memory"] > 3 * size + MEMORY:
        return f"{answer['memory'] / 2**20:.0f} MB of memory for a file of {size / 2**20:.1f} MB"
    if answer["seconds"] > SECONDS:
        return f"{answer['seconds']:.1f} seconds"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--only", metavar="KIND:NUMBER")
    args = parser.parse_args()
    kinds = [args.only.partition(":")[0]] if args.only else args.kinds.split(",")
    numbers = [int(args.only.partition(":")[2])] if args.only else range(-(-args.mutants // len(kinds)))
    worker, work, n_violations = Worker(), Path(tempfile.mkdtemp()), 0
    print(f"{'kind':12} {'tried':>6} {'opened':>7} {'refused':>8} {'violations':>11} {'most MB':>8} {'most s':>7}")
    for kind in kinds:
        whole, mutant, answers, found = work / "whole" / kind, work / "mutant", [], 0
        whole.mkdir(parents=True)
        KINDS[kind][0](whole)
        if not (answer := worker.open(kind, whole))["opened"]:
            raise SystemExit(f"the whole {kind} does not open: {answer['problem']}")
        for number in numbers:
            how = make_mutant(whole, mutant, kind, args.seed, number)
            size = sum(path.stat().st_size for path in mutant.rglob("*") if path.is_file())
            answers.append(worker.open(kind, mutant))
            if wrong := violation(answers[-1], size):
                found += 1
                print(f"VIOLATION --seed {args.seed} --only {kind}:{number} ({how}): {wrong}", flush=True)
        opened, memory = sum(a["opened"] for a in answers), max(a["memory"] for a in answers) / 2**20
        seconds = max(a["seconds"] for a in answers)
        counts = f"{len(answers):6} {opened:7} {len(answers) - opened:8} {found:11}"
        print(f"{kind:12} {counts} {memory:8.0f} {seconds:7.2f}", flush=True)
        n_violations += found
    worker.close()
    print(f"seed {args.seed}: {len(kinds) * len(numbers)} mutants, {n_violations} violations")
    if args.only:
        print(f"the mutant is in {mutant}")
    else:
        shutil.rmtree(work)
    raise SystemExit(n_violations > 0)


if __name__ == "__main__":
    main()
