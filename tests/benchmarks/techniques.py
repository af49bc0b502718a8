"""Compares techniques of training by the validation loss: optimizers, schedules, averages of weights, batch sizes.

    python tests/benchmarks/techniques.py --results FILE [--text FOLDER] [--base FILE --instructions FILE]
        [--tasks scratch full lora] [--only WORD ...] [--steps N]

The task `scratch` trains a small new model on plain text (--text), `full` and `lora` fine-tune --base on
--instructions. All runs of a task see equally many records. Each technique has its best learning rate on the first
seed: of rates that differ by a factor of two, the one whose neighbours are both worse. If it takes over 3 % longer for
a token than the baseline, it also runs with fewer steps, in equal time. Each run is appended to --results as a line of
JSON. Stop the script at any time: the next call skips the runs that are there.

Prints for each technique its learning rate, the difference of its loss to the baseline's, the ratio of the times for a
token and, where it ran, the difference at equal time. A difference is the mean over the seeds of the difference with
the same seed, +- its standard deviation. Below 0 is better.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

sys.path.insert(0, str(Path(__file__).parents[2]))

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.config import VOCAB_SIZE, DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.data.open_data import load_data
from gpt2cli.data.splits import Splits, spread
from gpt2cli.errors import DivergedError
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.engine import train
from gpt2cli.training.events import Step
from gpt2cli.training.inputs import load_model
from gpt2cli.training.job import Job, make_job
from gpt2cli.training.settings import Settings
from gpt2cli.training.validation import mean_loss

Results = dict[str, float]
SEEDS, RECORDS = (0, 1, 2), 8  # the records in a step of the baseline
VOCABULARY = 2048  # of the new model: with all tokens, most of its time would be spent in its head
AVERAGES, AVERAGED, EMA_SHARE = ("mean", "ema"), 0.2, 0.05  # of the last fifth of the steps; time constant of the EMA
WARMUP_PAIRS, PAIRS, EQUAL = 2, 12, 1.03  # pairs of steps that are timed, and the largest ratio that counts as equal


@dataclass(frozen=True)
class Task:
    """What is trained. The search for the baseline's learning rate starts at that of the settings."""

    name: str
    settings: Settings
    splits: Splits
    steps: int


@dataclass(frozen=True)
class Technique:
    """A way to train, with some `changes` of the baseline's TrainConfig."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    weights: str = "last"  # those that are evaluated: the last, or one of AVERAGES
    neftune: float = 0.0  # the size of NEFTune's noise
    rate: float | None = None  # the learning rate; None: the best


BASELINE = Technique("AdamW, cosine schedule")
FOR_ALL = [
    Technique("Muon", {"optimizer": "muon"}),
    *(Technique(name, {"schedule": name}) for name in ("linear", "constant")),
    *(Technique(f"wsd, cooldown {share}", {"schedule": "wsd", "cooldown": share}) for share in (0.4, 0.2)),
    *(Technique(f"cosine, {kind}", {}, kind) for kind in AVERAGES),
    *(Technique(f"constant, {kind}", {"schedule": "constant"}, kind) for kind in AVERAGES),
]
SIZES = [Technique(f"{n} records a step", {"batch_size": n}) for n in (4, 16)]
PASSES = [Technique(f"{n} x {8 // n} records", {"batch_size": n, "grad_accum": 8 // n}) for n in (4, 2)]
NEFTUNE = Technique("NEFTune, alpha 5", neftune=5.0)
TECHNIQUES = {
    "scratch": [*FOR_ALL, *SIZES],
    "full": [*FOR_ALL, NEFTUNE, *SIZES, *PASSES],
    "lora": [*FOR_ALL, NEFTUNE, *(Technique(f"rate {rate:g}", rate=rate) for rate in (3e-4, 5e-4, 1e-3, 2e-3))],
}


def add_noise(model: Any, alpha: float) -> None:
    """NEFTune (Jain et al. 2023): uniform noise of at most alpha / sqrt(T * C) on the embeddings of T tokens."""

    def noisy(module: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        positions = arguments[0]
        # a sequence ends where the next position is not one more
        ends = torch.cat([(positions.diff() != 1).nonzero().flatten(), torch.tensor([len(positions) - 1])])
        lengths = (positions[ends] + 1).repeat_interleave(ends.diff(prepend=torch.tensor([-1])))
        size = alpha / (lengths * output.shape[-1]).sqrt() * model.training
        return output + (torch.rand_like(output) * 2 - 1) * size[:, None]

    model.wpe.register_forward_hook(noisy)


def prepare(task: Task, technique: Technique, config: TrainConfig) -> Job:
    """The job of a run that neither evaluates nor saves anything before its end."""
    settings = replace(task.settings, train=config)
    model = load_model(settings, "cpu", offline=True)
    if technique.neftune:
        add_noise(model, technique.neftune)
    return make_job(settings, model, task.splits, Ranks(), torch.device("cpu"))


def losses_of(job: Job) -> Results:
    """Train, and compute the validation loss with the last weights, and with both averages of the last ones."""
    functions = get_swa_multi_avg_fn(), get_ema_multi_avg_fn(1 - 1 / (EMA_SHARE * job.total_steps))
    averages = [AveragedModel(job.model, multi_avg_fn=function).eval() for function in functions]
    try:
        for event in train(job):
            if isinstance(event, Step) and event.step > (1 - AVERAGED) * job.total_steps:
                for average in averages:
                    average.update_parameters(job.model)
    except DivergedError:
        return dict.fromkeys(("last", *AVERAGES), math.inf)
    losses = {}
    for name, model in zip(("last", *AVERAGES), (job.model, *(each.module for each in averages)), strict=True):
        autocast = torch.autocast("cpu", job.autocast, enabled=job.autocast is not None)
        losses[name] = mean_loss(model, job.val, job.max_tokens, autocast, job.ranks)
    return losses


class Lab:
    """Compares techniques. It runs only what is not in the file of results yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.found: dict[str, Results] = dict(map(json.loads, lines))

    def once(self, task: Task, technique: Technique, compute: Callable[[], Results], **more: Any) -> Results:
        """The results for this key, from the file if they are there."""
        key = {"task": task.name, "base": task.settings.ckpt, **more}
        text = json.dumps(key | {"changes": technique.changes, "neftune": technique.neftune}, sort_keys=True)
        if text not in self.found:
            self.found[text] = compute()
            with self.path.open("a") as file:
                file.write(json.dumps([text, self.found[text]]) + "\n")
            print(time.strftime("%X"), text, self.found[text], file=sys.stderr)
        return self.found[text]

    def loss(self, task: Task, technique: Technique, rate: float, seed: int, share: float = 1.0) -> float:
        """The validation loss after as many records as the baseline reads in `share` of its steps."""
        config = replace(task.settings.train, learning_rate=rate, seed=seed, **technique.changes)
        steps = round(share * task.steps * RECORDS / (config.batch_size * config.grad_accum))
        config = replace(config, max_steps=steps)
        run = {"rate": rate, "seed": seed, "steps": steps}
        found = self.once(task, technique, lambda: losses_of(prepare(task, technique, config)), **run)
        return found[technique.weights]

    def best_rate(self, task: Task, technique: Technique, rate: float) -> float:
        """The best learning rate on the first seed, where halving and doubling begins at `rate`."""
        while (best := min((rate, 2 * rate, rate / 2), key=lambda r: self.loss(task, technique, r, SEEDS[0]))) != rate:
            rate = best
        return rate

    def slowness(self, task: Task, technique: Technique) -> float:
        """Its time for a token divided by the baseline's: the median over steps of both in turn."""
        if technique.changes.keys() <= {"schedule", "cooldown"} and not technique.neftune:
            return 1.0
        config = replace(task.settings.train, max_steps=WARMUP_PAIRS + PAIRS)

        def measure() -> Results:
            jobs = [prepare(task, each, replace(config, **each.changes)) for each in (BASELINE, technique)]
            runs = [(event for event in train(job) if isinstance(event, Step)) for job in jobs]
            ratios = [before.tok_s / after.tok_s for before, after in zip(*runs, strict=True)]
            return {"slowness": statistics.median(ratios[WARMUP_PAIRS:])}

        return self.once(task, technique, measure)["slowness"]

    def compare(self, task: Task, only: list[str]) -> None:
        """Print a line for the baseline, and for each technique that has one of the words `only` in its name."""

        def losses(technique: Technique, rate: float, share: float = 1.0) -> list[float]:
            return [self.loss(task, technique, rate, seed, share) for seed in SEEDS]

        def spread_of(found: list[float], base: list[float]) -> str:
            differences = [a - b for a, b in zip(found, base, strict=True)]
            return f"{statistics.mean(differences):+.4f} +- {statistics.stdev(differences):.4f}"

        best = self.best_rate(task, BASELINE, task.settings.train.learning_rate)
        before = losses(BASELINE, best)
        print(f"\n{task.name}, {task.steps} steps: AdamW, cosine, {best:g}: {spread_of(before, [0] * len(before))}")
        for technique in TECHNIQUES[task.name]:
            if not only or any(word in technique.name for word in only):
                rate = technique.rate or self.best_rate(task, technique, best)
                slowness = self.slowness(task, technique)
                line = f"{technique.name:31} {rate:<8g} {spread_of(losses(technique, rate), before)}  {slowness:.2f}"
                if slowness > EQUAL and "grad_accum" not in technique.changes:
                    line += f"  {spread_of(losses(technique, rate, 1 / slowness), before)}"
                print(line, flush=True)


def frequent_tokens(splits: Splits) -> Splits:
    """The splits with the most frequent tokens of the training text, numbered from 0. All others become one token."""
    kept = splits.train.tokens.int().bincount(minlength=VOCAB_SIZE).topk(VOCABULARY - 1).indices
    number = torch.full((VOCAB_SIZE,), VOCABULARY - 1).scatter(0, kept, torch.arange(VOCABULARY - 1)).to(torch.uint16)
    train, val = (replace(data, tokens=number[data.tokens.int()]) for data in (splits.train, splits.val))
    return replace(splits, train=train, val=val.select(spread(128, len(val))))


def tasks(args: argparse.Namespace) -> list[Task]:
    """The tasks for which the options give what they need."""
    config = TrainConfig(batch_size=RECORDS, eval_every=0, sample_every=0, save_every=0)
    plain = Settings(model=None, ckpt=args.base, data=None, train=config, records=DataConfig())
    found = []
    if args.text:
        shape = GPTConfig(n_layer=3, n_head=4, n_embd=128, block_size=64, vocab_size=VOCABULARY)
        # with the default warm-up and dropout, the seeds differ more than the techniques
        steady = replace(config, learning_rate=4e-3, warmup=20, dropout=0.0)
        settings = replace(plain, ckpt=None, train=steady, from_scratch=shape, precision="fp32")
        splits = load_data(args.text, config, DataConfig(test_fraction=0), shape.block_size)
        found.append(Task("scratch", settings, frequent_tokens(splits), 2 * args.steps))
    if args.base and args.instructions:
        window = ModelSpec(None, args.base, offline=True).shape().block_size
        splits = load_data(args.instructions, config, DataConfig(val_fraction=0.2, test_fraction=0), window)
        for name, rate, lora in ("full", 5e-4, None), ("lora", 4e-3, LoRAConfig()):
            settings = replace(plain, train=replace(config, learning_rate=rate), lora=lora)
            found.append(Task(name, settings, splits, args.steps))
    return [task for task in found if task.name in args.tasks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="plain text: a file, or a folder of .txt files")
    parser.add_argument("--base", help="the checkpoint to fine-tune")
    parser.add_argument("--instructions", type=Path, help="a file of instructions with answers")
    parser.add_argument("--tasks", nargs="+", default=[*TECHNIQUES], choices=[*TECHNIQUES])
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="a word of the names of techniques")
    parser.add_argument("--steps", type=int, default=100, help="of the baseline; from scratch twice as many")
    args = parser.parse_args()
    for task in tasks(args):
        Lab(args.results).compare(task, args.only)


if __name__ == "__main__":
    main()
