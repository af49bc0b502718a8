"""Compare what the commands of two commits write: stdout, and every file, byte for byte except for times.

    python tests/compare_commits.py OLD [NEW]       # two commits; without NEW the working tree
    python tests/compare_commits.py OLD --only tiny # the bundled model alone, which takes some minutes less

Each command runs in both versions under the same paths. GPT-2 of 124M parameters gets random weights from a seed.
The exit code is 1 if anything differs.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMES = re.compile(r'("(?:[a-z_]*tok_s|[a-z_]*seconds|load_s|peak_rss_mb|crc32)": )[-+.\w]+')
"""Values in JSON that differ from run to run: times, and checksums of files that hold times."""
NOT_COMPARED = (".png", ".lock", ".packed")
"""Files that are drawn by other libraries, that hold nothing, or that hold the times of other files."""

RECORDS = [
    {
        "instruction": f"Say the number {n} in words.",
        "input": "" if n % 3 else "politely",
        "output": "number " * (n % 7 + 1),
    }
    for n in range(60)
]
PROMPT = "Once upon a time there was a king who had"


def commands(model: str) -> Iterator[list[str]]:
    """The table: what is run, in this order, for the model of this name or directory."""
    yield ["generate", PROMPT, "--model", model, "-n", "40", "--temp", "0", "--seed", "0", "--json"]
    yield ["generate", PROMPT, "--model", model, "-n", "40", "--seed", "3"]
    yield ["generate", PROMPT, "--model", model, "-n", "30", "--num-samples", "3", "--seed", "3", "--json"]
    yield [
        "generate",
        PROMPT * 30,
        "--model",
        model,
        "-n",
        "30",
        "--top-p",
        "0.9",
        "--seed",
        "1",
        "--precision",
        "fp32",
    ]
    for precision in ("int8", "int4", "bf16"):
        yield ["generate", PROMPT, "--model", model, "-n", "20", "--seed", "2", "--precision", precision]
    yield ["chat", "--model", model, "--prompt", "What is the opposite of hot?", "--seed", "1", "-n", "20", "--json"]
    train = ["finetune", "--model", model, "--data", "records.json", "--max-length", "48", "--batch-size", "2"]
    train += ["--max-steps", "20", "--eval-every", "10", "--sample-every", "20", "--dropout", "0.1", "--threads", "2"]
    yield [*train, "--out", "full.pt", "--run-dir", "full", "--json"]
    yield [*train, "--out", "lora.pt", "--run-dir", "lora", "--lora", "--precision", "fp32"]
    yield ["chat", "--ckpt", "full.pt", "--prompt", "Say the number 7 in words.", "--temp", "0", "-n", "10"]
    yield ["generate", PROMPT, "--ckpt", "lora/adapter", "-n", "10", "--temp", "0"]
    evaluate = [
        "evaluate",
        "--data",
        "records.json",
        "--model",
        model,
        "--ckpt",
        "full.pt",
        "--answers",
        "4",
        "-n",
        "8",
    ]
    yield [*evaluate, "--json", "--out", "report.json"]
    yield ["evaluate", "--data", "text.txt", "--model", model, "--stride", "64", "--json"]
    for form, out in (("hf", "hf"), ("gguf", "full.gguf"), ("nanogpt", "nano.pt"), ("original", "original.pt")):
        yield ["export", "--ckpt", "full.pt", "--format", form, "--out", out]
    yield ["export", "--ckpt", "lora/adapter", "--format", "peft", "--out", "peft"]
    for bits in ("8", "4"):
        yield ["quantize", "--ckpt", "full.pt", "--bits", bits, "--out", f"bits{bits}.safetensors"]
    yield ["generate", PROMPT, "--ckpt", "bits4.safetensors", "-n", "10", "--temp", "0"]
    yield ["generate", PROMPT, "--ckpt", "full.gguf", "-n", "10", "--temp", "0"]
    yield ["prepare-alpaca", "--source", "records.json", "--out", "prepared", "--json"]
    yield ["evaluate", "--data", "prepared", "--model", model, "--answers", "2", "-n", "5", "--json"]


def run_table(checkout: Path, model: str, work: Path) -> list[tuple[list[str], int, str]]:
    """Run the table with a checkout's package in the directory `work`: commands, exit codes, and what they print."""
    work.mkdir()
    (work / "records.json").write_text(json.dumps(RECORDS))
    (work / "text.txt").write_text("\n".join(f"{PROMPT} {n} sons. They lived by the sea." for n in range(60)))
    environment = {**os.environ, "PYTHONPATH": str(checkout), "GPT2CLI_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1"}
    done = []
    for command in commands(model):
        program = [sys.executable, "-m", "gpt2cli", *command]
        ran = subprocess.run(program, cwd=work, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            print(f"  {' '.join(command[:1])} ends with {ran.returncode}: {ran.stderr.strip()[-200:]}")
        done.append((command, ran.returncode, TIMES.sub(r"\1", ran.stdout)))
    return done


def contents(directory: Path) -> dict[str, object]:
    """Every file below a directory, by its path in it: bytes, text without times, safetensors with a sorted header."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if not path.is_file() or path.suffix in NOT_COMPARED or name.startswith("home/evaluations"):
            continue
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl", ".md"):
            found[name] = TIMES.sub(r"\1", content.decode())
        elif path.suffix == ".safetensors":  # the library writes the metadata in any order
            end = 8 + int.from_bytes(content[:8], "little")
            found[name] = (json.dumps(json.loads(content[8:end]), sort_keys=True), content[end:])
        else:
            found[name] = content
    return found


def compare(old: Path, new: Path, model: str, scratch: Path) -> int:
    """Run the table in both checkouts; print what differs, and return how many things do."""
    results, files = [], []
    for checkout in (old, new):
        work = scratch / "work"  # the same path for both, as files hold paths
        results.append(run_table(checkout, model, work))
        files.append(contents(work))
        shutil.rmtree(work)
    different = 0
    for (command, *before), (_, *after) in zip(*results, strict=True):
        if before != after:
            different += 1
            print(f"DIFFERENT {' '.join(command)}\n  old: {before!r:.400}\n  new: {after!r:.400}")
    for name in sorted(files[0].keys() | files[1].keys()):
        if files[0].get(name) != files[1].get(name):
            different += 1
            where = "" if all(name in found for found in files) else ": only " + ("old" if name in files[0] else "new")
            print(f"DIFFERENT FILE {name}{where}")
    print(f"{model}: {len(results[0])} commands, {len(files[0])} files, {different} different")
    return different


def save_random_model(directory: Path) -> str:
    """A directory in the Hub's layout with GPT-2 of 124M parameters and random weights."""
    import torch

    from gpt2cli.config import GPTConfig
    from gpt2cli.model.gpt import GPT
    from tests import models

    torch.manual_seed(0)
    return str(models.save_hub_directory(GPT(GPTConfig()), directory))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new", nargs="?")
    parser.add_argument("--only", choices=["tiny", "124M"])
    asked = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="compare-"))
    checkouts = []
    for number, commit in enumerate((asked.old, asked.new)):
        checkouts.append(scratch / str(number) if commit else ROOT)
        if commit:
            subprocess.run(["git", "worktree", "add", "-q", "--detach", checkouts[-1], commit], cwd=ROOT, check=True)
    try:
        models = ["tiny"] if asked.only != "124M" else []
        models += [save_random_model(scratch / "gpt2-random")] if asked.only != "tiny" else []
        different = sum(compare(*checkouts, model, scratch) for model in models)
        return int(different > 0)
    finally:
        for checkout in checkouts:
            if checkout != ROOT:
                subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
