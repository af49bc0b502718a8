"""Hold the loss on answers only, and its gradients, to those of TRL's SFTTrainer and of the Hugging Face Trainer.

    python tests/response_loss_peers.py

A small random GPT-2 in fp32 takes one step on the same token sequences: conversations with TRL, as a dataset that is
tokenized already, with `assistant_masks`; records of one exchange with the Trainer, with labels. Our rows share the
beginnings of sequences, and are packed; the peers' are padded. Needs `trl` and `datasets`. Prints a line a comparison:
the peer and its batches, the most tokens of our rows, the numbers of sequences and of targets, the loss, its difference
as a share of it, the norm of the gradients' difference as a share of their norm, and the largest difference in a tensor
as a share of its largest value. Exits with 1 if one of the first two differences is above BOUND.
"""

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
import transformers
import trl
from datasets.table import InMemoryTable
from torch import Tensor
from transformers import AutoTokenizer, GPT2LMHeadModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import DataConfig, GPTConfig
from gpt2cli.data.batches import make_rows
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.records import Record
from gpt2cli.data.tokenized_records import tokenize_records
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.model.gpt import GPT
from gpt2cli.training.loss import SequenceLoss
from tests.data.records import as_read, conversation
from tests.models import small_model

BOUND = 1e-5
COUNT = 12
SHAPE = GPTConfig(n_layer=3, n_head=4, n_embd=64, block_size=256)
WORDS = ("the", "fox", "saw", "a", "crow", "on", "its", "branch", "with", "cheese", "and", "asked", "why", "it", "sang")


def conversations(turns: int) -> TokenDataset:
    """Conversations of 1 to `turns` exchanges of random words. Some have a system text, and some begin alike."""
    draw = random.Random(turns)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))

    records: list[Record] = []
    for i in range(COUNT):
        system = text() if turns > 1 and i % 4 == 0 else ""
        beginning = ["Hi.", "Hello! What would you like to hear?"] if turns > 1 and i % 3 == 0 else []
        rest = [text() for _ in range(2 * draw.randint(1, turns - len(beginning) // 2))]
        records.append(conversation(*beginning, *rest, system=system))
    return tokenize_records(as_read(*records), Path("records"), SHAPE.block_size, "response", DataConfig()).dataset


def ours(model: GPT, data: TokenDataset, max_tokens: int) -> tuple[float, dict[str, Tensor]]:
    """The mean loss over all targets, and its gradients, in rows of at most `max_tokens` tokens."""
    model.zero_grad()
    total = 0.0
    for row in make_rows(data, range(len(data)), max_tokens, torch.device("cpu")):
        loss = SequenceLoss(model)(row) / data.n_targets
        loss.backward()
        total += loss.item()
    return total, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


class Watch(TrainerCallback):
    """Keeps the gradients of the first step, with our names and orientation. They are not clipped."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        for name, parameter in model.named_parameters():
            name = name.removeprefix("transformer.")
            turned = name.startswith("h.") and parameter.dim() == 2
            self.gradients[name] = (parameter.grad.t() if turned else parameter.grad).clone()


def watched(kind: type[Trainer], **arguments: Any) -> tuple[float, dict[str, Tensor]]:
    """The loss of the trainer's first step, and its gradients."""
    losses: list[float] = []

    class Watched(kind):
        def compute_loss(self, *args: Any, **named: Any) -> Any:
            loss = super().compute_loss(*args, **named)
            losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
            return loss

    watch = Watch()
    trainer = Watched(callbacks=[watch], **arguments)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return sum(losses), watch.gradients


def settings(out: Path, passes: int) -> dict[str, Any]:
    """One step over all sequences, in this many passes."""
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": COUNT // passes,
        "gradient_accumulation_steps": passes,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "use_cpu": True,
        "bf16": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def with_trl(hub: Path, out: Path, data: TokenDataset, passes: int) -> tuple[float, dict[str, Tensor]]:
    pairs = [(ids.tolist(), is_target.int().tolist()) for ids, is_target in data]
    columns = dict(zip(("input_ids", "assistant_masks"), map(list, zip(*pairs, strict=True)), strict=True))
    return watched(
        trl.SFTTrainer,
        model=GPT2LMHeadModel.from_pretrained(hub),
        processing_class=AutoTokenizer.from_pretrained(hub),
        args=trl.SFTConfig(**settings(out, passes), max_length=None),
        # with a fingerprint, as its own would need a version of dill that can pickle the table
        train_dataset=datasets.Dataset(InMemoryTable(pyarrow.table(columns)), fingerprint=data.fingerprint()),
    )


def with_trainer(hub: Path, out: Path, data: TokenDataset, passes: int) -> tuple[float, dict[str, Tensor]]:
    rows = [(ids, torch.where(is_target, ids, -100)) for ids, is_target in data]

    def collate(rows: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        def pad(tensors: tuple[Tensor, ...], value: int) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True, padding_value=value)

        ids, labels = zip(*rows, strict=True)
        mask = pad(tuple(torch.ones_like(each) for each in ids), 0)
        return {"input_ids": pad(ids, 0), "labels": pad(labels, -100), "attention_mask": mask}

    return watched(
        Trainer,
        model=GPT2LMHeadModel.from_pretrained(hub),
        args=TrainingArguments(**settings(out, passes), remove_unused_columns=False),
        train_dataset=rows,
        data_collator=collate,
    )


def main() -> None:
    print(f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}; bound {BOUND:g}")
    titles = f"{'row':>6}{'sequences':>10}{'targets':>8}{'loss':>11}{'difference':>11}{'gradients':>10}{'worst':>9}"
    print(f"{'peer':<28}{titles}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    model, failed = small_model(SHAPE), False
    with tempfile.TemporaryDirectory() as name:
        out, hub = Path(name) / "out", Path(name) / "hub"
        save_checkpoint(model, Path(name) / "a.pt")
        export(Request(ModelSpec(ckpt=Path(name) / "a.pt"), "hf", hub, "f32"))
        config = GPT2LMHeadModel.from_pretrained(hub).config
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
        config.save_pretrained(hub)
        peers: list[tuple[str, int, Callable[..., tuple[float, dict[str, Tensor]]]]] = [
            ("TRL, conversations", 4, with_trl),
            ("Trainer, one exchange", 1, with_trainer),
        ]
        for peer, turns, run in peers:
            data = conversations(turns)
            for passes in (1, 3):
                loss, expected = run(hub, out, data, passes)
                for max_tokens in (1, 1024):
                    found, gradients = ours(model, data, max_tokens)
                    both = [(gradients[key] - value, value) for key, value in expected.items()]
                    norm = torch.stack([value.norm() for _, value in both]).norm()
                    difference = abs(found - loss) / loss
                    of_all = float(torch.stack([wrong.norm() for wrong, _ in both]).norm() / norm)
                    worst = max(float(wrong.abs().max() / value.abs().max()) for wrong, value in both)
                    failed |= max(difference, of_all) > BOUND or gradients.keys() != expected.keys()
                    case = f"{peer}, {passes} x {COUNT // passes}"
                    print(
                        f"{case:<28}{max_tokens:>6}{len(data):>10}{data.n_targets:>8,}{loss:>11.6f}"
                        f"{difference:>11.1e}{of_all:>10.1e}{worst:>9.1e}",
                        flush=True,
                    )
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
