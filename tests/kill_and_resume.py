"""Kill a training run at random moments, with dropout, and compare the resumed run with an unbroken one.

    python tests/kill_and_resume.py [--rounds 20] [--seed 0] [OPTION ...]

Each round starts the same run, kills it (kill -9) after a random time, resumes it, kills it again, and so on, until the
run ends by itself. Then all losses, the final weights and the best weights must equal those of the unbroken run to the
bit. Prints a line for each round; exits with 1 at the first difference. tests/cli/commands/test_finetune.py has a short
form of this test. Other options are passed on to `gpt2 finetune`, for instance `--optimizer muon`.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli.config import GPTConfig
from tests import models
from tests.training.records import write_records

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64)


def learned(run: Path) -> list[tuple[str, int, str]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["kind"], line["step"], line.get("loss", line.get("val_loss")).hex()) for line in lines]


def weights(file: Path) -> dict[str, bytes]:
    model = torch.load(file, weights_only=True)["model"]
    return {name: tensor.numpy().tobytes() for name, tensor in model.items()}


def finish(command: list[str], run: Path, choose: random.Random, longest: float) -> int:
    """Start the command and kill it after a random time, until it ends by itself. Returns how often it was killed."""
    kills = 0
    while True:
        begun = ["--resume"] if (run / "config.json").exists() else []
        process = subprocess.Popen([*command, *begun], stderr=subprocess.PIPE, text=True)
        try:
            _, err = process.communicate(timeout=choose.uniform(1.0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            if kills > 100:
                raise SystemExit("the run makes no progress") from None
            continue
        if process.returncode:
            raise SystemExit(f"exit code {process.returncode} after {kills} kills: {err}")
        return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args, options = parser.parse_known_args()
    choose = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        base = models.save_hub_directory(models.small_model(SHAPE), work / "base")
        data = write_records(work / "records.json", 60)
        command = [sys.executable, "-m", "gpt2cli", "finetune", "--model", str(base), "--data", str(data), "--quiet"]
        command += ["--batch-size", "3", "--epochs", "4", "--keep-states"]  # also keeps best.pt
        command += ["--save-every", "2", "--eval-every", "5", "--sample-every", "0", *options]
        start = time.monotonic()
        whole = ["--run-dir", str(work / "whole"), "--out", str(work / "whole.pt")]
        subprocess.run([*command, *whole], check=True)
        longest = (time.monotonic() - start) * 0.7
        expected = learned(work / "whole"), weights(work / "whole.pt"), weights(work / "whole" / "best.pt")
        for number in range(1, args.rounds + 1):
            run, out = work / f"run-{number}", work / f"out-{number}.pt"
            kills = finish([*command, "--run-dir", str(run), "--out", str(out)], run, choose, longest)
            same = (learned(run), weights(out), weights(run / "best.pt")) == expected
            print(f"round {number}: killed {kills} times, {'the same to the bit' if same else 'DIFFERENT'}", flush=True)
            if not same:
                raise SystemExit(1)


if __name__ == "__main__":
    main()
