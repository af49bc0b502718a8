"""`gpt2 finetune`: train on instructions or on plain text."""

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt2cli import paths
from gpt2cli.cli import options
from gpt2cli.config import FINETUNED, PUBLISHED, SCHEDULES, DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.errors import UsageError

if TYPE_CHECKING:
    from gpt2cli.training.settings import Settings

EXAMPLES = """
[bold]Examples[/bold]

gpt2 finetune --subset 5000

gpt2 finetune --data records.json --epochs 2 --lora

gpt2 finetune --data tales/ --from-scratch --n-layer 4 --n-head 4 --n-embd 128 --block-size 256

gpt2 finetune --resume

torchrun --nproc-per-node 2 -m gpt2cli finetune --data records.json
"""
DATA, TRAINING, ADAPTER, SCRATCH, RUN = "Data", "Training", "LoRA", "From scratch", "Run"
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
        typer.Option(
            "--data",
            metavar="PATH",
            help="Alpaca .json or .jsonl, what prepare-alpaca made, a .txt, a folder of .txt, or the bundled lessons.",
            show_default="Alpaca",
            rich_help_panel=DATA,
        ),
    ] = None,
    subset: Annotated[
        int | None, typer.Option("--subset", help="Take so many records, chosen at random.", rich_help_panel=DATA)
    ] = RECORDS.subset,
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", help="The share of records to validate on.", rich_help_panel=DATA)
    ] = RECORDS.val_fraction,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", help="Tokens of a record at the most.", show_default="the window", rich_help_panel=DATA
        ),
    ] = TRAIN.max_length,
    loss_on: Annotated[
        str, typer.Option("--loss-on", metavar="response|all", help="What to learn to write.", rich_help_panel=DATA)
    ] = TRAIN.loss_on,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count malformed records instead of failing.", rich_help_panel=DATA)
    ] = False,
    epochs: Annotated[
        int, typer.Option("--epochs", help="Times over the data.", rich_help_panel=TRAINING)
    ] = TRAIN.epochs,
    max_steps: Annotated[
        int | None,
        typer.Option("--max-steps", help="Optimizer steps, in place of --epochs.", rich_help_panel=TRAINING),
    ] = TRAIN.max_steps,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Records in one pass.", rich_help_panel=TRAINING)
    ] = TRAIN.batch_size,
    grad_accum: Annotated[
        int, typer.Option("--grad-accum", help="Passes in one optimizer step.", rich_help_panel=TRAINING)
    ] = TRAIN.grad_accum,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            help="The highest learning rate.",
            show_default=f"{TRAIN.learning_rate:g}, {LORA.learning_rate:g} with --lora",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    schedule: Annotated[
        str, typer.Option("--schedule", metavar="|".join(SCHEDULES), help="How it falls.", rich_help_panel=TRAINING)
    ] = TRAIN.schedule,
    warmup: Annotated[
        int, typer.Option("--warmup", help="Steps in which it rises first.", rich_help_panel=TRAINING)
    ] = TRAIN.warmup,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", help="Of matrices only.", rich_help_panel=TRAINING)
    ] = TRAIN.weight_decay,
    clip: Annotated[
        float, typer.Option("--clip", help="The largest norm of a gradient.", rich_help_panel=TRAINING)
    ] = TRAIN.clip,
    dropout: Annotated[
        float, typer.Option("--dropout", help="The share of activations to drop.", rich_help_panel=TRAINING)
    ] = TRAIN.dropout,
    patience: Annotated[
        int,
        typer.Option(
            "--patience", help="End after so many evaluations without a better one; 0: never.", rich_help_panel=TRAINING
        ),
    ] = TRAIN.patience,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train a low-rank adapter only.", rich_help_panel=ADAPTER)
    ] = False,
    lora_rank: Annotated[int, typer.Option("--lora-rank", help="Its rank.", rich_help_panel=ADAPTER)] = LORA.rank,
    lora_alpha: Annotated[
        float, typer.Option("--lora-alpha", help="Its weight is alpha / rank.", rich_help_panel=ADAPTER)
    ] = LORA.alpha,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train a new model of this shape.", rich_help_panel=SCRATCH)
    ] = False,
    n_layer: Annotated[int, typer.Option("--n-layer", help="Blocks.", rich_help_panel=SCRATCH)] = SHAPE.n_layer,
    n_head: Annotated[int, typer.Option("--n-head", help="Heads.", rich_help_panel=SCRATCH)] = SHAPE.n_head,
    n_embd: Annotated[int, typer.Option("--n-embd", help="Width.", rich_help_panel=SCRATCH)] = SHAPE.n_embd,
    block_size: Annotated[
        int, typer.Option("--block-size", help="Tokens of context.", rich_help_panel=SCRATCH)
    ] = SHAPE.block_size,
    sampled_softmax: Annotated[
        int,
        typer.Option(
            "--sampled-softmax",
            help="Learn against so many drawn tokens, not all, until the end nears: faster for narrow models.",
            show_default="all",
            rich_help_panel=SCRATCH,
        ),
    ] = TRAIN.sampled_softmax,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="Where the weights go: .pt or .safetensors.", rich_help_panel=RUN),
    ] = Path(FINETUNED),
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run-dir", metavar="DIR", help="Where the run's files go.", show_default="a new one", rich_help_panel=RUN
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with RUN, --run-dir, or the newest run.", rich_help_panel=RUN)
    ] = False,
    eval_every: Annotated[
        int | None,
        typer.Option("--eval-every", help="Steps; 0: never.", show_default="a tenth of the run", rich_help_panel=RUN),
    ] = TRAIN.eval_every,
    sample_every: Annotated[
        int | None,
        typer.Option("--sample-every", help="Steps; 0: never.", show_default="a tenth of the run", rich_help_panel=RUN),
    ] = TRAIN.sample_every,
    save_every: Annotated[
        int | None,
        typer.Option("--save-every", help="Steps; 0: never.", show_default="a tenth of the run", rich_help_panel=RUN),
    ] = TRAIN.save_every,
    sample_prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--sample-prompt", metavar="TEXT", help="What to ask while training; repeatable.", rich_help_panel=RUN
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.", rich_help_panel=RUN)] = TRAIN.seed,
    wandb: Annotated[bool, typer.Option("--wandb/--no-wandb", help="Track with W&B.", rich_help_panel=RUN)] = False,
    wandb_project: Annotated[
        str, typer.Option("--wandb-project", help="The project's name there.", rich_help_panel=RUN)
    ] = "gpt2cli",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the model (CUDA).", rich_help_panel=options.MACHINE_PANEL)
    ] = False,
    grad_checkpointing: Annotated[
        bool,
        typer.Option(
            "--grad-checkpointing", help="Less memory, a third more time.", rich_help_panel=options.MACHINE_PANEL
        ),
    ] = False,
    json: options.Json = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    device: options.Device = "auto",
    precision: Annotated[
        Computing,
        typer.Option("--precision", help="What to compute in.", rich_help_panel=options.MACHINE_PANEL),
    ] = Computing.auto,
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


def wherever(place: str | None) -> str | None:
    """A path that is there, such that it also means the same elsewhere; anything else as it is."""
    if not place or place in PUBLISHED or not paths.expand(place).exists():
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
        model=wherever(values["model"]),
        ckpt=wherever(values["ckpt"]),
        data=wherever(values["data"]),
        train=TrainConfig(**train),
        records=DataConfig(values["val_fraction"], test_fraction=0, subset=values["subset"], seed=values["seed"]),
        lora=lora,
        from_scratch=scratch,
        precision=values["precision"].value,
        grad_checkpointing=values["grad_checkpointing"],
        skip_bad=values["skip_bad"],
        sample_prompts=tuple(values["sample_prompt"] or ()),
        out=str(paths.expand(values["out"]).absolute()),
        wandb_project=values["wandb_project"] if values["wandb"] else None,
    )
