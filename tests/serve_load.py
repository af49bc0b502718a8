"""Load `gpt2 serve` with many clients: speed, waiting, memory, clients that leave, and the same texts as alone.

    python tests/serve_load.py [PART ...] [--model M] [--precision fp16] [--threads 2] [--json FILE]

Each part starts another server. Parts, all if none is named:

    throughput   the tokens a second of 2, 4 and 8 clients together, in comparison with one; all take streams
    first-token  the time to the first text of a short prompt: alone, while a long prompt is read, beside 7 streams
    memory       the server's memory after 100 and after 2,000 random requests
    leave        500 clients that leave at random moments: what they leave behind
    equality     200 random requests at random moments: the texts and log-probabilities of `gpt2 generate`

Without --model and --ckpt, the model is gpt2 (124M) with random weights. Prints a line for each figure; --json adds a
line of JSON to a file for each part, with all settings. Exits with 1 if a target is missed. The clients run in this
process, in one thread, and share the processor with the server. Figures are medians over rounds in which the cases take
turns. Needs Linux.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.config import GPTConfig
from tests import models
from tests.served_process import serving
from tests.serving.load_part import Load, Part
from tests.serving.load_soundness import equality, leave, memory
from tests.serving.load_speed import first_token, throughput

PARTS = {
    "throughput": throughput,
    "first-token": first_token,
    "memory": memory,
    "leave": leave,
    "equality": equality,
}


def main() -> None:
    args = read_arguments()
    with ExitStack() as stack:
        if not (args.model or args.ckpt):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            args.model = str(models.save_hub_directory(models.small_model(GPTConfig()), directory / "random-gpt2"))
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the model that `equality` loads
        missed = [target for name in args.parts or PARTS for target in run_part(name, args).missed]
    if missed:
        raise SystemExit(f"missed: {'; '.join(missed)}")


def run_part(name: str, args: argparse.Namespace) -> Part:
    part = Part(name)
    model = ["--ckpt", args.ckpt] if args.ckpt else ["--model", args.model]
    settings = ["--precision", args.precision, "--threads", str(args.threads), "--slots", str(args.slots)]
    settings += ["--max-queue", str(args.max_queue)]
    window = ModelSpec(args.model, args.ckpt).shape().block_size
    start, before = time.perf_counter(), os.getloadavg()
    with tempfile.TemporaryDirectory() as log, serving(Path(log), *model, "--device", "cpu", *settings) as server:
        asyncio.run(PARTS[name](Load(server, random.Random(args.seed), window, args), part))
        part.must(server.end(signal.SIGTERM) == 143, "SIGTERM ends the server")
    part.tell("took", time.perf_counter() - start, f"{time.perf_counter() - start:.0f} s, load before {before[0]:.2f}")
    if args.json:
        record = {"part": name, "settings": vars(args) | {"json": None}, "missed": part.missed, "figures": part.figures}
        record["machine"] = {
            "processors": len(os.sched_getaffinity(0)),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load_before": before,
        }
        with Path(args.json).open("a") as file:
            print(json.dumps(record), file=file)
    return part


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--model")
    parser.add_argument("--ckpt", help="in place of --model")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--max-queue", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help="of the random requests and moments")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=7, help="of throughput")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="of throughput")
    parser.add_argument("--new-tokens", type=int, default=128, help="of throughput")
    parser.add_argument("--first-rounds", type=int, default=25, help="of first-token")
    parser.add_argument("--short-tokens", type=int, default=16, help="of first-token")
    parser.add_argument("--long-tokens", type=int, default=900, help="of first-token")
    parser.add_argument("--memory-requests", type=int, default=2000)
    parser.add_argument("--leaving", type=int, default=500, help="clients that leave")
    parser.add_argument("--equality-requests", type=int, default=200)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part is named {', '.join(sorted(unknown))}")
    return args


if __name__ == "__main__":
    main()
