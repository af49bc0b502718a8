"""How long `gpt2 prepare-alpaca` takes, and how much memory, for as many records as Alpaca has.

    python tests/benchmarks/prepare.py [--records 52000] [--source FILE]

Makes up records of Alpaca's size, about 850 characters each, or repeats those of FILE. Prints one JSON object.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = """the of and to in is that it was for on are as with his they at be this from have or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some so these
would other into has more her two like him see time could no make than first been its who now people my made over did
down only way find use may water long little very after words called just where most know system language important
example different temperature company environment information children because between"""


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS.split(), k=count)).capitalize() + "."


def made_up(count: int) -> list[dict[str, str]]:
    draw = random.Random(0)
    return [
        {
            "instruction": words(draw, draw.randint(5, 20)),
            "input": words(draw, draw.randint(5, 40)) if draw.random() < 0.4 else "",
            "output": words(draw, draw.randint(1, 220)),
        }
        for _ in range(count)
    ]


def repeated(source: Path, count: int) -> list[dict[str, str]]:
    known = json.loads(source.read_text(encoding="utf-8"))
    return [known[i % len(known)] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=52_000)
    parser.add_argument("--source", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records.json"
        made = repeated(args.source, args.records) if args.source else made_up(args.records)
        records.write_text(json.dumps(made), encoding="utf-8")
        start = time.perf_counter()
        command = [sys.executable, "-m", "gpt2cli", "prepare-alpaca", "--source", str(records), "--json"]
        done = subprocess.run([*command, "--out", f"{folder}/out"], check=True, capture_output=True)
        seconds = time.perf_counter() - start
        size = records.stat().st_size
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # memory in KiB, as on Linux
    tokens = json.loads(done.stdout)["counts"]["tokens"]
    found = {"records": args.records, "file_mb": size / 1e6, "tokens": tokens, "seconds": seconds}
    found |= {"processor_seconds": usage.ru_utime + usage.ru_stime, "peak_rss_mb": usage.ru_maxrss / 1024}
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


if __name__ == "__main__":
    main()
