"""Make the model that comes with the package out of a training run's result.

    python tests/bundle_tiny.py tiny.pt --data books/ --val-fraction 0.03 --seed 19769

The weights go into gpt2cli/assets/tiny, the blocks' matrices in 4 bits and the embedding in 8, with one shared row of
the embedding for all tokens that occur less than twice in the data. `--data`, `--val-fraction` and `--seed` are those
of the run: they tell which tokens occur, and which books to validate on. Prints the size, and the loss on these books
before and after.
"""

import argparse
import json
import math
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.metadata import read_metadata
from gpt2cli.checkpoints.save import save_tensors
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.open_data import load_data
from gpt2cli.model.gpt import GPT
from gpt2cli.paths import asset
from gpt2cli.published import TINY
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.validation import mean_loss
from tests.models import hub_config, quantized_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val-fraction", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=19769)
    args = parser.parse_args()
    model = load_plain(ckpt=args.ckpt, device="cpu")
    data = DataConfig(args.val_fraction, test_fraction=0, seed=args.seed)
    splits = load_data(args.data, TrainConfig(), data, model.config.block_size)

    def loss(of: GPT) -> float:
        return mean_loss(of, splits.val, 1024, nullcontext(), Ranks())

    before = loss(model)
    tokens = torch.cat([splits.train.tokens, splits.val.tokens]).int()
    occurs = torch.bincount(tokens, minlength=model.config.vocab_size) > 1
    small = quantized_state(model.state_dict(), 4, occurs)
    file, facts = asset(TINY) / "model.safetensors", read_metadata(args.ckpt)
    save_tensors(small, model.config, file, template=facts.template)
    (asset(TINY) / "config.json").write_text(json.dumps(hub_config(model.config), indent=1) + "\n")
    after = loss(load_plain(TINY, device="cpu"))
    print(f"{int(occurs.sum()):,} of {len(occurs):,} tokens occur; {file.stat().st_size / 1e6:.2f} MB")
    for what, value in (("as trained", before), ("as bundled", after)):
        print(f"{what}: validation loss {value:.4f}, perplexity {math.exp(value):.2f}")


if __name__ == "__main__":
    main()
