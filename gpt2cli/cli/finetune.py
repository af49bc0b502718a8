"""`gpt2 finetune`: train on instructions or on plain text."""

from collections.abc import Collection
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt2cli import paths
from gpt2cli.cli import options
from gpt2cli.config import (
    FINETUNED,
    OPTIMIZERS,
    PUBLISHED,
    SCHEDULES,
    TINY,
    DataConfig,
    GPTConfig,
    LoRAConfig,
    TrainConfig,
)
from gpt2cli.errors import UsageError

if TYPE_CHECKING:
    from gpt2cli.training.settings import Settings

EXAMPLES = """
[bold]Examples[/bold]

gpt2 finetune --subset 5000

gpt2 finetune --data records.json --epochs 2 --lora

gpt2 finetune --data tales/ --from-scratch --n-layer 4 --n-head 4 --n-embd 128 --block-size 256 --lr 1e-3

gpt2 finetune --resume

torchrun --nproc-per-node 2 -m gpt2cli finetune --data records.json
"""
# options by the panel of the help page that they stand in
of_data, of_training, of_adapter, of_scratch, of_run, of_machine = (
    partial(typer.Option, rich_help_panel=panel)
    for panel in ("Data", "Training", "LoRA", "From scratch", "Run", options.MACHINE_PANEL)
)
TRAIN, RECORDS, LORA, SHAPE = TrainConfig(), DataConfig(), LoRAConfig(), GPTConfig()
NAMES = {
    "wandb": "wandb_project",
    "lr": "learning_rate",
    "sample_prompt": "sample_prompts",
}  # options whose setting has another name


class Computing(str, Enum):
    """What a forward pass computes in; the weights that are trained stay in fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(finetune)


def finetune(
    ctx: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="The run to go on with, after --resume.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        of_data(
            "--data",
            metavar="PATH",
            help="Alpaca .json or .jsonl, what prepare-alpaca made, a .txt, a folder of .txt, or the bundled lessons.",
            show_default="Alpaca",
        ),
    ] = None,
    subset: Annotated[int | None, of_data("--subset", help="Take so many records, chosen at random.")] = RECORDS.subset,
    val_fraction: Annotated[
        float, of_data("--val-fraction", help="The share of records to validate on.")
    ] = RECORDS.val_fraction,
    max_length: Annotated[
        int | None, of_data("--max-length", help="Tokens of a record at the most.", show_default="the window")
    ] = TRAIN.max_length,
    loss_on: Annotated[
        str, of_data("--loss-on", metavar="response|all", help="What to learn to write.")
    ] = TRAIN.loss_on,
    skip_bad: Annotated[bool, of_data("--skip-bad", help="Count malformed records instead of failing.")] = False,
    epochs: Annotated[int, of_training("--epochs", help="Times over the data.")] = TRAIN.epochs,
    max_steps: Annotated[
        int | None, of_training("--max-steps", help="Optimizer steps, in place of --epochs.")
    ] = TRAIN.max_steps,
    batch_size: Annotated[int, of_training("--batch-size", help="Records in one pass.")] = TRAIN.batch_size,
    grad_accum: Annotated[int, of_training("--grad-accum", help="Passes in one optimizer step.")] = TRAIN.grad_accum,
    lr: Annotated[
        float | None,
        of_training(
            "--lr",
            help="The highest learning rate.",
            show_default=f"{TRAIN.learning_rate:g}, {LORA.learning_rate:g} with --lora",
        ),
    ] = None,
    optimizer: Annotated[
        str,
        of_training(
            "--optimizer",
            metavar="|".join(OPTIMIZERS),
            help="muon learns faster from scratch; adamw suits weights that AdamW has trained, such as GPT-2's.",
        ),
    ] = TRAIN.optimizer,
    schedule: Annotated[
        str, of_training("--schedule", metavar="|".join(SCHEDULES), help="How it falls.")
    ] = TRAIN.schedule,
    warmup: Annotated[int, of_training("--warmup", help="Steps in which it rises first.")] = TRAIN.warmup,
    weight_decay: Annotated[float, of_training("--weight-decay", help="Of matrices only.")] = TRAIN.weight_decay,
    clip: Annotated[float, of_training("--clip", help="The largest norm of a gradient.")] = TRAIN.clip,
    dropout: Annotated[float, of_training("--dropout", help="The share of activations to drop.")] = TRAIN.dropout,
    patience: Annotated[
        int, of_training("--patience", help="End after so many evaluations without a better one; 0: never.")
    ] = TRAIN.patience,
    lora: Annotated[bool, of_adapter("--lora", help="Train a low-rank adapter only.")] = False,
    lora_rank: Annotated[int, of_adapter("--lora-rank", help="Its rank.")] = LORA.rank,
    lora_alpha: Annotated[float, of_adapter("--lora-alpha", help="Its weight is alpha / rank.")] = LORA.alpha,
    from_scratch: Annotated[bool, of_scratch("--from-scratch", help="Train a new model of this shape.")] = False,
    n_layer: Annotated[int, of_scratch("--n-layer", help="Blocks.")] = SHAPE.n_layer,
    n_head: Annotated[int, of_scratch("--n-head", help="Heads.")] = SHAPE.n_head,
    n_embd: Annotated[int, of_scratch("--n-embd", help="Width.")] = SHAPE.n_embd,
    block_size: Annotated[int, of_scratch("--block-size", help="Tokens of context.")] = SHAPE.block_size,
    sampled_softmax: Annotated[
        int,
        of_scratch(
            "--sampled-softmax",
            help="Learn against so many drawn tokens, not all, until the end nears: faster for narrow models.",
            show_default="all",
        ),
    ] = TRAIN.sampled_softmax,
    out: Annotated[Path, of_run("--out", metavar="FILE", help="Where the weights go: .pt or .safetensors.")] = Path(
        FINETUNED
    ),
    run_dir: Annotated[
        Path | None, of_run("--run-dir", metavar="DIR", help="Where the run's files go.", show_default="a new one")
    ] = None,
    resume: Annotated[bool, of_run("--resume", help="Go on with RUN, --run-dir, or the newest run.")] = False,
    eval_every: Annotated[
        int | None, of_run("--eval-every", help="Steps; 0: never.", show_default="a tenth of the run")
    ] = TRAIN.eval_every,
    sample_every: Annotated[
        int | None, of_run("--sample-every", help="Steps; 0: never.", show_default="a tenth of the run")
    ] = TRAIN.sample_every,
    save_every: Annotated[
        int | None,
        of_run("--save-every", help="Steps; 0: never, nor the best weights.", show_default="a tenth of the run"),
    ] = TRAIN.save_every,
    sample_prompt: Annotated[
        list[str] | None, of_run("--sample-prompt", metavar="TEXT", help="What to ask while training; repeatable.")
    ] = None,
    seed: Annotated[int, of_run("--seed", help="Of everything random.")] = TRAIN.seed,
    wandb: Annotated[bool, of_run("--wandb/--no-wandb", help="Track with W&B.")] = False,
    wandb_project: Annotated[str, of_run("--wandb-project", help="The project's name there.")] = "gpt2cli",
    compile: Annotated[
        bool, of_machine("--compile", help="Compile the blocks: a slow start, then faster steps.")
    ] = False,
    grad_checkpointing: Annotated[
        bool, of_machine("--grad-checkpointing", help="Less memory, a third more time.")
    ] = False,
    json: options.Json = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    device: options.Device = "auto",
    precision: Annotated[Computing, of_machine("--precision", help="What to compute in.")] = Computing.auto,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Fine-tune GPT-2 on instructions (Alpaca's, or your own), or train it on plain text."""
    if run is not None and not resume:
        raise UsageError(f"{run} is the name of a run, which only --resume takes: did you mean --data {run}?")
    given = frozenset(NAMES.get(name, name) for name in ctx.params if was_given(ctx, name))
    if not resume:
        refuse_idle(given, lora, from_scratch)
    with options.named_as_typed("gpt2 finetune"):
        asked = make_settings(ctx.params)
    from gpt2cli.cli.training import Show, run_training

    show = Show(
        run=run or run_dir,
        resume=resume,
        given=given,
        device=device,
        threads=threads,
        offline=offline,
        compile=compile,
        json=json,
        quiet=quiet,
    )
    run_training(asked, show)


def refuse_idle(given: frozenset[str], lora: bool, from_scratch: bool) -> None:
    """Raise UsageError for options that were typed and would do nothing."""
    shape = {"n_layer", "n_head", "n_embd", "block_size"}
    for names, holds, why in (
        ({"lora_rank", "lora_alpha"}, lora, "is about the adapter: add --lora"),
        (shape, from_scratch, "is about a new model: add --from-scratch"),
        (
            {"model", "ckpt", "lora"},
            not from_scratch,
            "is about a model that exists, and --from-scratch makes a new one: leave one out",
        ),
    ):
        for name in sorted(names & given):
            if not holds:
                raise UsageError(f"--{name.replace('_', '-')} {why}")


def was_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def wherever(place: str | None, names: Collection[str] = ()) -> str | None:
    """A path that is there, such that it also means the same elsewhere; anything else, and one of `names`, as it is."""
    if not place or place in names or not paths.expand(place).exists():
        return place
    return str(paths.expand(place).absolute())


def make_settings(values: dict[str, Any]) -> "Settings":
    """The settings that the options ask for. Raises UsageError for values out of range."""
    from gpt2cli.training.settings import Settings

    lora = LoRAConfig(values["lora_rank"], values["lora_alpha"]) if values["lora"] else None
    default_lr = lora.learning_rate if lora else TRAIN.learning_rate
    scratch = None
    if values["from_scratch"]:
        shape = {name: values[name] for name in ("n_layer", "n_head", "n_embd", "block_size", "dropout")}
        scratch = GPTConfig(**shape)
    names = set(asdict(TRAIN)) & set(values)
    train = {name: values[name] for name in names} | {
        "learning_rate": default_lr if values["lr"] is None else values["lr"]
    }
    return Settings(
        model=wherever(values["model"], (*PUBLISHED, TINY)),
        ckpt=wherever(values["ckpt"]),
        data=wherever(values["data"]),
        train=TrainConfig(**train),
        records=DataConfig(values["val_fraction"], test_fraction=0, subset=values["subset"], seed=values["seed"]),
        lora=lora,
        from_scratch=scratch,
        precision=Computing(values["precision"]).value,  # some versions of Typer leave a text there
        grad_checkpointing=values["grad_checkpointing"],
        skip_bad=values["skip_bad"],
        sample_prompts=tuple(values["sample_prompt"] or ()),
        out=str(paths.expand(values["out"]).absolute()),
        wandb_project=values["wandb_project"] if values["wandb"] else None,
    )
