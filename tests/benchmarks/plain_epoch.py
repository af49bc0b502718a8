"""What the fast path costs in quality: the validation loss after training, beside that of a plain loop in fp32.

    python tests/benchmarks/plain_epoch.py --data FILE [--model tiny] [--epochs 1] [--lr 5e-5] [--precision auto]

The plain loop is what one would write without this package's engine: padded batches in random order, all logits,
torch's own cross-entropy, AdamW and clipping, fp32. The other is `gpt2 finetune` as a process. Model, records, split,
learning rates and batch size are the same; both results are measured by the plain loss. Prints one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).parents[2]))

from gpt2cli.checkpoints.load import load_plain
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.kinds import data_path
from gpt2cli.data.open_data import load_data
from gpt2cli.model.gpt import GPT
from gpt2cli.training.inputs import set_dropout
from gpt2cli.training.optim import learning_rate


def summed_loss(model: GPT, data: TokenDataset, records: list[int]) -> Tensor:
    """Sum of the losses of all tokens that count, of records padded to one length."""
    sequences = [data[record] for record in records]
    ids = pad_sequence([ids for ids, _ in sequences], batch_first=True)
    targets = [torch.where(is_target, ids, -100) for ids, is_target in sequences]
    logits = model(ids[:, :-1])
    wanted = pad_sequence(targets, batch_first=True, padding_value=-100)[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="sum")


@torch.no_grad()
def validate(model: GPT, data: TokenDataset) -> float:
    model.eval()
    return sum(float(summed_loss(model, data, [record])) for record in range(len(data))) / data.n_targets


def train_plainly(model: GPT, data: TokenDataset, config: TrainConfig) -> None:
    set_dropout(model, config.dropout)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    batches = [b.tolist() for _ in range(config.epochs) for b in torch.randperm(len(data)).split(config.batch_size)]
    model.train()
    for step, records in enumerate(batches):
        n_targets = int(data.target_counts[records].sum())
        (summed_loss(model, data, records) / n_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(batches), config)
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=TrainConfig.learning_rate)
    parser.add_argument("--precision", default="auto", help="of gpt2 finetune")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = TrainConfig(epochs=args.epochs, learning_rate=args.lr, seed=args.seed)
    model = load_plain(args.model, device="cpu", offline=True)
    splits = load_data(
        data_path(args.data), config, DataConfig(test_fraction=0, seed=args.seed), model.config.block_size
    )
    result: dict[str, Any] = {"before": validate(model, splits.val)}
    model = model.requires_grad_(True)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    torch.manual_seed(args.seed)
    train_plainly(model, splits.train, config)
    result["plain"] = validate(model, splits.val)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "finetuned.pt"
        command = [sys.executable, "-m", "gpt2cli", "finetune", "--model", args.model, "--data", args.data]
        command += ["--epochs", str(args.epochs), "--lr", str(args.lr), "--seed", str(args.seed), "--quiet"]
        command += ["--precision", args.precision, "--eval-every", "0", "--sample-every", "0", "--save-every", "0"]
        subprocess.run([*command, "--run-dir", str(Path(name) / "run"), "--out", str(out)], check=True)
        result["summary"] = json.loads((Path(name) / "run" / "summary.json").read_text())
        result["finetune"] = validate(load_plain(ckpt=out, device="cpu"), splits.val)
    result["ratio"] = result["finetune"] / result["plain"]
    print(json.dumps(result | vars(args)))


if __name__ == "__main__":
    main()
