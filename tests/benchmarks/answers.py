"""How long answers take: in batches with a cache, and one by one without, as the project that this one follows did it.

    python tests/benchmarks/answers.py [--model tiny] [--data lessons] [--records 64] [--new-tokens 24]

Both answer the same records greedily. Prints one JSON object: seconds and tokens a second of each, how many times
faster the batches are, and how many of the answers are the same. A model with random weights comes to no end by
itself, so that each of its answers has --new-tokens tokens.
"""

import argparse
import json
import time
from dataclasses import replace

import torch

from gpt2cli import tokenizer
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import ANSWERS
from gpt2cli.data.kinds import data_path
from gpt2cli.data.records import read_records
from gpt2cli.evaluation.answers import answer
from gpt2cli.inference.decoder import as_decoder
from gpt2cli.model.gpt import GPT
from gpt2cli.prompts import ALPACA


@torch.no_grad()
def one_by_one(model: GPT, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    """Reads everything anew for every token, and works out the logits of every place."""
    answers = []
    for prompt in prompts:
        idx = torch.tensor([prompt])
        for _ in range(new_tokens):
            token = model(idx[:, -model.config.block_size :])[:, -1].argmax(dim=-1)
            if int(token) == tokenizer.END_OF_TEXT_ID:
                break
            idx = torch.cat([idx, token[None]], dim=1)
        answers.append(idx[0, len(prompt) :].tolist())
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", default="lessons")
    parser.add_argument("--records", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=24)
    args = parser.parse_args()
    model = load_plain(args.model, device="cpu")
    records = read_records(data_path(args.data)).good
    records = [records[i % len(records)] for i in range(args.records)]
    prompts = [tokenizer.encode(ALPACA.prompt(record.instruction, record.input)) for record in records]
    sampling = replace(ANSWERS, max_new_tokens=args.new_tokens)
    decoder = as_decoder(model)
    next(iter(answer(decoder, {0: prompts[0]}, replace(sampling, max_new_tokens=1))))  # what is only slow once

    start = time.perf_counter()
    batched = dict(answer(decoder, dict(enumerate(prompts)), sampling))
    batched_s = time.perf_counter() - start
    start = time.perf_counter()
    alone = one_by_one(model, prompts, args.new_tokens)
    alone_s = time.perf_counter() - start

    same = sum(tokenizer.decode(tokens).strip() == batched[i].text for i, tokens in enumerate(alone))
    found = {"model": args.model, "records": len(prompts), "prompt_tokens": sum(map(len, prompts))}
    found |= {"new_tokens": sum(map(len, alone)), "batched_s": batched_s, "one_by_one_s": alone_s}
    found |= {"batched_tok_s": sum(said.tokens for said in batched.values()) / batched_s}
    found |= {"one_by_one_tok_s": sum(map(len, alone)) / alone_s, "times_faster": alone_s / batched_s, "same": same}
    print(json.dumps({name: round(value, 2) if isinstance(value, float) else value for name, value in found.items()}))


if __name__ == "__main__":
    main()
