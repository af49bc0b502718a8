"""`gpt2 finetune`: train on instructions or on plain text."""

from functools import partial
from typing import Annotated

import typer

from gpt2cli import paths
from gpt2cli.cli import options
from gpt2cli.cli.finetune_settings import (
    LORA,
    RECORDS,
    SHAPE,
    TRAIN,
    Computing,
    make_settings,
    refuse_idle,
)
from gpt2cli.config import FINETUNED, OPTIMIZERS, SCHEDULES
from gpt2cli.errors import UsageError

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
NAMES = {
    "wandb": "wandb_project",
    "lr": "learning_rate",
    "sample_prompt": "sample_prompts",
}  # options whose setting has another name


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(finetune)


def finetune(
    ctx: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="The run to go on with, after --resume.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        of_data(
            "--data",
            metavar="PATH",
            help="Alpaca .json or .jsonl, .txt, a folder of .txt, a directory of prepare-alpaca, or lessons (bundled).",
            show_default="Alpaca",
        ),
    ] = None,
    subset: Annotated[
        int | None, of_data("--subset", help="Take only this many records, chosen at random.")
    ] = RECORDS.subset,
    val_fraction: Annotated[
        float, of_data("--val-fraction", help="The share of records to validate on.")
    ] = RECORDS.val_fraction,
    max_length: Annotated[
        int | None, of_data("--max-length", help="The most tokens of a record.", show_default="the window")
    ] = TRAIN.max_length,
    loss_on: Annotated[
        str,
        of_data(
            "--loss-on",
            metavar="response|all",
            help="The tokens that count in the loss: those of the responses, or all.",
        ),
    ] = TRAIN.loss_on,
    template: Annotated[
        str | None,
        of_data(
            "--template",
            metavar=options.TEMPLATE,
            help="The wording that instructions are put in, as for `gpt2 chat`. The checkpoint carries it.",
            show_default="alpaca",
        ),
    ] = None,
    skip_bad: Annotated[bool, of_data("--skip-bad", help="Count malformed records instead of failing.")] = False,
    epochs: Annotated[int, of_training("--epochs", help="Passes over the data.")] = TRAIN.epochs,
    max_steps: Annotated[
        int | None, of_training("--max-steps", help="Optimizer steps, instead of --epochs.")
    ] = TRAIN.max_steps,
    batch_size: Annotated[int, of_training("--batch-size", help="Records in one pass.")] = TRAIN.batch_size,
    grad_accum: Annotated[int, of_training("--grad-accum", help="Passes in one optimizer step.")] = TRAIN.grad_accum,
    lr: Annotated[
        float | None,
        of_training(
            "--lr",
            help="The peak learning rate.",
            show_default=f"{TRAIN.learning_rate:g}, {LORA.learning_rate:g} with --lora",
        ),
    ] = None,
    optimizer: Annotated[
        str,
        of_training(
            "--optimizer",
            metavar="|".join(OPTIMIZERS),
            help="muon learns faster from scratch; adamw (betas 0.9, 0.999) suits weights that it trained, as GPT-2's.",
        ),
    ] = TRAIN.optimizer,
    schedule: Annotated[
        str,
        of_training(
            "--schedule",
            metavar="|".join(SCHEDULES),
            help="How the learning rate falls after the warm-up: to 0, or not at all.",
        ),
    ] = TRAIN.schedule,
    warmup: Annotated[
        int, of_training("--warmup", help="First steps, in which the learning rate rises linearly to --lr.")
    ] = TRAIN.warmup,
    weight_decay: Annotated[
        float,
        of_training("--weight-decay", help="Decoupled weight decay of the matrices; biases and LayerNorms have none."),
    ] = TRAIN.weight_decay,
    clip: Annotated[float, of_training("--clip", help="The largest norm of the gradient of a step.")] = TRAIN.clip,
    dropout: Annotated[
        float, of_training("--dropout", help="The probability of dropping an activation.")
    ] = TRAIN.dropout,
    patience: Annotated[
        int, of_training("--patience", help="Stop after this many evaluations without a lower loss; 0: never.")
    ] = TRAIN.patience,
    lora: Annotated[bool, of_adapter("--lora", help="Train a low-rank adapter only.")] = False,
    lora_rank: Annotated[int, of_adapter("--lora-rank", help="The rank of the adapter.")] = LORA.rank,
    lora_alpha: Annotated[
        float, of_adapter("--lora-alpha", help="The adapter is scaled by alpha / rank.")
    ] = LORA.alpha,
    from_scratch: Annotated[bool, of_scratch("--from-scratch", help="Train a new model of this shape.")] = False,
    n_layer: Annotated[int, of_scratch("--n-layer", help="Number of blocks.")] = SHAPE.n_layer,
    n_head: Annotated[int, of_scratch("--n-head", help="Attention heads of a block.")] = SHAPE.n_head,
    n_embd: Annotated[int, of_scratch("--n-embd", help="Width of the embedding.")] = SHAPE.n_embd,
    block_size: Annotated[
        int, of_scratch("--block-size", help="Length of the context window in tokens.")
    ] = SHAPE.block_size,
    sampled_softmax: Annotated[
        int,
        of_scratch(
            "--sampled-softmax",
            help="Compute the loss over this many drawn tokens for most of the run: faster for narrow models.",
            show_default="all",
        ),
    ] = TRAIN.sampled_softmax,
    out: Annotated[str, of_run("--out", metavar="FILE", help="Where the weights go: .pt or .safetensors.")] = FINETUNED,
    run_dir: Annotated[
        str | None, of_run("--run-dir", metavar="DIR", help="Where the run's files go.", show_default="a new one")
    ] = None,
    resume: Annotated[bool, of_run("--resume", help="Go on with RUN, --run-dir, or the newest run.")] = False,
    eval_every: Annotated[
        int | None, of_run("--eval-every", help="Evaluate every N steps; 0: never.", show_default="a tenth of the run")
    ] = TRAIN.eval_every,
    sample_every: Annotated[
        int | None,
        of_run(
            "--sample-every",
            help="Answer the sample prompts every N steps; 0: never.",
            show_default="a tenth of the run",
        ),
    ] = TRAIN.sample_every,
    save_every: Annotated[
        int | None,
        of_run(
            "--save-every", help="Save every N steps; 0: no checkpoints, no best.pt.", show_default="a tenth of the run"
        ),
    ] = TRAIN.save_every,
    sample_prompt: Annotated[
        list[str] | None,
        of_run("--sample-prompt", metavar="TEXT", help="A prompt to answer while training; repeatable."),
    ] = None,
    seed: Annotated[int, of_run("--seed", help="Seed of all random choices.")] = TRAIN.seed,
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
    if run and not resume:
        raise UsageError(f"{run} is the name of a run, which only --resume takes: did you mean --data {run}?")
    given = frozenset(NAMES.get(name, name) for name in ctx.params if was_given(ctx, name))
    if not resume:
        refuse_idle(given, lora, from_scratch)
    with options.named_as_typed("gpt2 finetune"):
        asked = make_settings(ctx.params)
    from gpt2cli.cli.run_finetune import run_training
    from gpt2cli.training.begin import RunOptions

    named = run or run_dir
    run_options = RunOptions(
        path=paths.expand(named) if named else None,
        resume=resume,
        given=given,
        device=device,
        offline=offline,
        compile=compile,
    )
    run_training(asked, run_options, threads=threads, json=json, quiet=quiet)


def was_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
