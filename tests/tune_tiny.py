"""Teach the bundled model to answer without forgetting how books go.

    python tests/tune_tiny.py base.pt --data books/ --out tuned.pt

Trains on the bundled lessons and, between them, on blocks of the books that the base was trained on: alone, the lessons
would triple its perplexity on books within minutes. The result is in between the base and what training made of it
("Robust fine-tuning of zero-shot models", Wortsman et al. 2021), which answers as well and forgets half as much. Prints
the loss on the lessons that are held out, and on blocks of the books that are, before and after. About a quarter of an
hour on two cores.
"""

import argparse
import random
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import LESSONS, DataConfig, TrainConfig
from gpt2cli.data.dataset import TokenDataset, from_masked
from gpt2cli.data.kinds import data_path
from gpt2cli.data.open_data import load_data
from gpt2cli.data.splits import Splits
from gpt2cli.model.gpt import GPT
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.engine import train
from gpt2cli.training.events import Step
from gpt2cli.training.inputs import set_dropout
from gpt2cli.training.job import Job
from gpt2cli.training.validation import mean_loss

BLOCK, BATCH = 256, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6, help="times over the lessons")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--share", type=float, default=0.5, help="steps on books for each step on lessons")
    parser.add_argument("--keep", type=float, default=0.85, help="the share of what training changed that is kept")
    parser.add_argument("--val-fraction", type=float, default=0.03, help="of the books, as in the base's run")
    parser.add_argument("--seed", type=int, default=19769, help="of the books' split, as in the base's run")
    args = parser.parse_args()
    model = load_plain(ckpt=args.ckpt, device="cpu")
    books = load_data(args.data, TrainConfig(), DataConfig(args.val_fraction, 0, seed=args.seed), BLOCK)
    lessons = load_data(data_path(LESSONS), TrainConfig(), DataConfig(test_fraction=0), model.config.block_size)
    held_out = books.val.select(range(0, len(books.val), 40))
    tell("before", model, lessons, held_out)
    base = {name: weight.clone() for name, weight in model.state_dict().items()}
    set_dropout(model, 0.1)
    config = TrainConfig(epochs=1, batch_size=BATCH, learning_rate=args.lr, warmup=20, weight_decay=0.0)
    config = replace(config, eval_every=0, sample_every=0, save_every=0)
    mixed = mixture(lessons.train, books.train, args.epochs, args.share)
    for event in train(Job(model=model, train=mixed, val=None, config=config)):
        if isinstance(event, Step) and event.step % 25 == 0:
            print(f"step {event.step}: loss {event.smoothed_loss:.3f}", flush=True)
    model.load_state_dict({name: torch.lerp(base[name], w, args.keep) for name, w in model.state_dict().items()})
    tell("after", model, lessons, held_out)
    save_checkpoint(
        model, args.out, template=lessons.template and lessons.template.to_dict(), provenance={"base": str(args.ckpt)}
    )


def mixture(lessons: TokenDataset, books: TokenDataset, epochs: int, share: float) -> TokenDataset:
    """The lessons as often as there are epochs, and blocks of the books, `share` times as many."""
    blocks = random.Random(epochs).sample(range(len(books)), int(len(lessons) * epochs * share))
    chosen = [(lessons, i) for _ in range(epochs) for i in range(len(lessons))] + [(books, i) for i in blocks]
    sequences, masks = zip(*(data[i] for data, i in chosen), strict=True)
    return from_masked([ids.to(torch.uint16) for ids in sequences], masks)


def tell(when: str, model: GPT, lessons: Splits, books: TokenDataset) -> None:
    losses = [mean_loss(model, data, 1024, nullcontext(), Ranks()) for data in (lessons.val, books)]
    print(f"{when}: lessons {losses[0]:.3f}, books {losses[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
