"""`gpt2 finetune`: train on instructions, conversations or plain text."""

from functools import partial
from typing import Annotated, Any

import typer

from gpt2cli import paths
from gpt2cli.cli import options
from gpt2cli.cli.config_options import option
from gpt2cli.cli.finetune_settings import (
    LORA,
    RECORDS,
    SHAPE,
    TRAIN,
    WANDB_PROJECT,
    check_before_training,
    given_names,
    groups_of,
    make_settings,
    refuse_idle,
)
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.spinner import working
from gpt2cli.config import FINETUNED, DataConfig, GPTConfig, LoRAConfig, TrainConfig, TrainingPrecision
from gpt2cli.errors import UsageError
from gpt2cli.hub.names import DATASET_FORM

EXAMPLES = """
gpt2 finetune --model tiny --data lessons --max-steps 20  # a first try, without a network
gpt2 finetune --data records.json --epochs 2  # on your own instructions
gpt2 finetune --data quiz.csv --columns instruction=task,output=solution  # a table with these column names
gpt2 finetune --data hf:yahma/alpaca-cleaned/alpaca_data_cleaned.json  # a file of a dataset on the Hub
gpt2 finetune --data records.json --lora  # only an adapter: faster, with less memory
gpt2 finetune --subset 5000  # on 5,000 of Alpaca's instructions
gpt2 finetune --data tales/ --from-scratch --n-layer 4 --n-head 4 --n-embd 128 --lr 1e-3  # a new, small model
gpt2 finetune --model gpt2-medium --data records.json --dry-run  # how long, and does it fit?
gpt2 finetune --config RUN --lr 1e-4 --out other.pt  # as an earlier run, with another learning rate
gpt2 finetune --resume  # continue the newest unfinished run
torchrun --nproc-per-node 2 -m gpt2cli finetune --data records.json  # on two GPUs
"""
DATA, TRAINING, ADAPTER, SCRATCH, RUN = "Data", "Training", "LoRA", "From scratch", "Run"
"""The panels of the help page."""
of_data, of_adapter, of_scratch, of_run, of_machine = (
    partial(typer.Option, rich_help_panel=panel) for panel in (DATA, ADAPTER, SCRATCH, RUN, options.MACHINE_PANEL)
)


def register(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(finetune)


def finetune(
    ctx: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="The run to continue, after --resume: its name or path.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        of_data(
            "--data",
            metavar="PATH|hf:...",
            help="Instructions with answers, or conversations (.csv, .tsv, .json, .jsonl), plain text (the same with a "
            "column text, .txt, or a folder of .txt), a directory of prepare-alpaca, or lessons (bundled). A file can "
            f"also be {DATASET_FORM} on the Hub, or an https address.",
            show_default="Alpaca",
        ),
    ] = None,
    columns: Annotated[str | None, options.columns(DATA)] = None,
    subset: Annotated[int | None, option(DATA, DataConfig, "subset")] = RECORDS.subset,
    val_fraction: Annotated[float, option(DATA, DataConfig, "val_fraction")] = RECORDS.val_fraction,
    max_length: Annotated[int | None, option(DATA, TrainConfig, "max_length")] = TRAIN.max_length,
    loss_on: Annotated[str, option(DATA, TrainConfig, "loss_on")] = TRAIN.loss_on,
    template: Annotated[
        str | None,
        of_data(
            "--template",
            metavar=options.TEMPLATE,
            help="The prompt template for instructions, as for `gpt2 chat`. The checkpoint contains it.",
            show_default="alpaca",
        ),
    ] = None,
    skip_bad: Annotated[
        bool, of_data("--skip-bad/--no-skip-bad", help="Skip malformed records and report their number.")
    ] = False,
    epochs: Annotated[int, option(TRAINING, TrainConfig, "epochs")] = TRAIN.epochs,
    max_steps: Annotated[int | None, option(TRAINING, TrainConfig, "max_steps")] = TRAIN.max_steps,
    batch_size: Annotated[int, option(TRAINING, TrainConfig, "batch_size")] = TRAIN.batch_size,
    grad_accum: Annotated[int, option(TRAINING, TrainConfig, "grad_accum")] = TRAIN.grad_accum,
    lr: Annotated[float | None, option(TRAINING, TrainConfig, "learning_rate", "--lr")] = None,
    optimizer: Annotated[str, option(TRAINING, TrainConfig, "optimizer")] = TRAIN.optimizer,
    schedule: Annotated[str, option(TRAINING, TrainConfig, "schedule")] = TRAIN.schedule,
    cooldown: Annotated[float, option(TRAINING, TrainConfig, "cooldown")] = TRAIN.cooldown,
    warmup: Annotated[int | None, option(TRAINING, TrainConfig, "warmup")] = TRAIN.warmup,
    weight_decay: Annotated[float, option(TRAINING, TrainConfig, "weight_decay")] = TRAIN.weight_decay,
    clip: Annotated[float, option(TRAINING, TrainConfig, "clip")] = TRAIN.clip,
    dropout: Annotated[float, option(TRAINING, TrainConfig, "dropout")] = TRAIN.dropout,
    patience: Annotated[int, option(TRAINING, TrainConfig, "patience")] = TRAIN.patience,
    lora: Annotated[bool, of_adapter("--lora/--no-lora", help="Train only a low-rank adapter.")] = False,
    lora_rank: Annotated[int, option(ADAPTER, LoRAConfig, "rank")] = LORA.rank,
    lora_alpha: Annotated[float, option(ADAPTER, LoRAConfig, "alpha")] = LORA.alpha,
    from_scratch: Annotated[bool, of_scratch("--from-scratch", help="Train a new model of this shape.")] = False,
    n_layer: Annotated[int, option(SCRATCH, GPTConfig, "n_layer")] = SHAPE.n_layer,
    n_head: Annotated[int, option(SCRATCH, GPTConfig, "n_head")] = SHAPE.n_head,
    n_embd: Annotated[int, option(SCRATCH, GPTConfig, "n_embd")] = SHAPE.n_embd,
    block_size: Annotated[int, option(SCRATCH, GPTConfig, "block_size")] = SHAPE.block_size,
    sampled_softmax: Annotated[int, option(SCRATCH, TrainConfig, "sampled_softmax")] = TRAIN.sampled_softmax,
    config: Annotated[
        str | None,
        of_run(
            "--config",
            metavar="FILE|RUN",
            help="Settings for a new run, from JSON as in a run's config.json: all of them or only a few. Options have "
            "precedence. Paths in the file are relative to the working directory.",
        ),
    ] = None,
    out: Annotated[
        str, of_run("--out", metavar="FILE", help="The file for the weights: .pt or .safetensors.")
    ] = FINETUNED,
    force: Annotated[
        bool, of_run("--force", help="Replace the file at --out even if this run did not write it.")
    ] = False,
    keep_states: Annotated[
        bool,
        of_run(
            "--keep-states/--no-keep-states",
            help="Keep the checkpoints when the run is done. With --schedule constant or wsd, `gpt2 finetune --resume "
            "RUN --epochs N` then extends the run; with wsd, from before the learning rate falls.",
        ),
    ] = False,
    run_dir: Annotated[
        str | None,
        of_run("--run-dir", metavar="DIR", help="The directory for the run's files.", show_default="a new one"),
    ] = None,
    resume: Annotated[
        bool, of_run("--resume", help="Continue RUN, the run in --run-dir, or the newest unfinished run.")
    ] = False,
    eval_every: Annotated[int | None, option(RUN, TrainConfig, "eval_every")] = TRAIN.eval_every,
    sample_every: Annotated[int | None, option(RUN, TrainConfig, "sample_every")] = TRAIN.sample_every,
    save_every: Annotated[int | None, option(RUN, TrainConfig, "save_every")] = TRAIN.save_every,
    sample_prompt: Annotated[
        list[str] | None,
        of_run(
            "--sample-prompt",
            metavar="TEXT",
            help="A prompt to answer during training. Can be repeated.",
            show_default="3 of the held-out records",
        ),
    ] = None,
    seed: Annotated[int, option(RUN, TrainConfig, "seed")] = TRAIN.seed,
    wandb: Annotated[
        bool, of_run("--wandb/--no-wandb", help="Track the run with Weights & Biases (wandb.ai).")
    ] = False,
    wandb_project: Annotated[
        str, of_run("--wandb-project", metavar="NAME", help="The name of the W&B project.")
    ] = WANDB_PROJECT,
    dry_run: Annotated[
        bool,
        of_run(
            "--dry-run",
            help="Only check the options and the data, and say how long it takes and if it fits. Downloads data, but "
            "no weights.",
        ),
    ] = False,
    compile: Annotated[bool, of_machine("--compile", help="Compile the model: slower start, faster steps.")] = False,
    grad_checkpointing: Annotated[
        bool,
        of_machine(
            "--grad-checkpointing/--no-grad-checkpointing",
            help="Recompute activations: less memory, a third more time.",
        ),
    ] = False,
    json: options.Json = False,
    verbose: Annotated[bool, of_run("--verbose", help="Also show each checkpoint that is saved.")] = False,
    model: options.Model = None,
    ckpt: options.Checkpoint = None,
    device: options.Device = "auto",
    precision: Annotated[
        TrainingPrecision,
        of_machine("--precision", help="The number format of the computation; weights stay in fp32."),
    ] = "auto",
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a model on instructions, conversations or text. Without --data, these are Alpaca's instructions."""
    if run and not resume:
        raise UsageError(f"{run} can name a run only with --resume: add it, or did you mean --data {run}?")
    if config and resume:
        raise UsageError(
            "--config is for a new run, and a resumed one has its settings in its own config.json: leave one out"
        )
    typed = {name: value for name, value in ctx.params.items() if was_given(ctx, name)}
    stored: dict[str, Any] = groups_of(typed) if resume else {}
    if config:
        from gpt2cli.cli.settings_file import read_settings

        stored = read_settings(config, ctx.params)
    asked = make_settings(typed, stored)
    given = given_names(typed, asked if config else None)
    if not resume:
        refuse_idle(given, asked.lora is not None, asked.from_scratch is not None, asked.train.schedule)
    named = run or run_dir
    force = force or dry_run  # which replaces nothing
    check_before_training(asked, named, resume=resume, force=force, device=device)
    with working(Console(quiet), "starting"):
        from gpt2cli.cli.run_finetune import run_training
        from gpt2cli.training.begin import RunOptions

    run_options = RunOptions(
        path=paths.expand(named) if named else None,
        resume=resume,
        force=force,
        given=given,
        device=device,
        offline=offline,
        compile=compile,
        dry_run=dry_run,
    )
    run_training(asked, run_options, threads=threads, json=json, quiet=quiet, verbose=verbose)


def was_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was typed, as opposed to its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
