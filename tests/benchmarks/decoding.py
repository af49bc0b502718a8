"""What prompt lookup and batches bring: tokens a second with and without, in turn, medians of the ratios.

python tests/benchmarks/decoding.py --model tiny
python tests/benchmarks/decoding.py --model gpt2 --prompt "tick tock tick tock tick tock tick tock"
"""

import argparse
import statistics
import time
from dataclasses import replace

import gpt2cli
from gpt2cli.config import SamplingConfig
from gpt2cli.generation.decode import generate_tokens
from gpt2cli.model.gpt import GPT

TALE = "Once upon a time there was a king who had three sons, and the king said to the eldest of them:"


def tokens_a_second(model: GPT, prompt: str, sampling: SamplingConfig, samples: int, speculate: bool) -> float:
    seeds = range(1, samples + 1)
    start = time.perf_counter()
    tokens = list(generate_tokens(model, [gpt2cli.encode(prompt)] * samples, sampling, seeds, speculate=speculate))
    return len(tokens) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--ckpt", help="in place of --model")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--prompt", default=TALE)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = gpt2cli.load(None if args.ckpt else args.model, ckpt=args.ckpt, precision=args.precision)
    model.prepare(print)
    greedy = SamplingConfig(max_new_tokens=args.tokens, temperature=0)
    sampled = replace(greedy, temperature=0.7)
    contests = {
        "greedy, drafts": (greedy, 1, True),
        "sampled at 0.7, drafts": (sampled, 1, True),
        f"{args.samples} samples at once": (sampled, args.samples, False),
    }
    for name, (sampling, samples, speculate) in contests.items():
        plain, ours = [], []
        for _ in range(args.rounds):
            plain.append(tokens_a_second(model, args.prompt, sampling, 1, False))
            ours.append(tokens_a_second(model, args.prompt, sampling, samples, speculate))
        ratio = statistics.median(b / a for a, b in zip(plain, ours, strict=True))
        speeds = f"{statistics.median(ours):,.0f} tokens/s, one without {statistics.median(plain):,.0f}"
        print(f"{args.ckpt or args.model} {model.precision}, {name}: {speeds}; {ratio:.2f} times", flush=True)


if __name__ == "__main__":
    main()
