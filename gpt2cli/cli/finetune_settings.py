"""Makes the settings of a run from the options of `gpt2 finetune`."""

import os
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2cli import paths, untrusted
from gpt2cli.bounds import check
from gpt2cli.config import DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.data.columns import parse_columns
from gpt2cli.errors import UsageError
from gpt2cli.outputs import check_checkpoint, check_free
from gpt2cli.prompts import read_template
from gpt2cli.published import PUBLISHED, TINY

if TYPE_CHECKING:
    from gpt2cli.training.settings import Settings

TRAIN, RECORDS, LORA, SHAPE = TrainConfig(), DataConfig(), LoRAConfig(), GPTConfig()
MAX_SIZE = 2**24
"""The largest number of blocks, heads, channels or positions of a new model. No machine can hold more."""
SHAPE_OPTIONS = ("n_layer", "n_head", "n_embd", "block_size")


def refuse_idle(given: frozenset[str], lora: bool, from_scratch: bool) -> None:
    """Raise UsageError for given options that have no effect."""
    for names, has_effect, why in (
        ({"lora_rank", "lora_alpha"}, lora, "has no effect without an adapter: add --lora"),
        (set(SHAPE_OPTIONS), from_scratch, "has no effect on an existing model: add --from-scratch"),
        (
            {"model", "ckpt", "lora"},
            not from_scratch,
            "is for an existing model, and --from-scratch makes a new one: leave one out",
        ),
    ):
        for name in sorted(names & given):
            if not has_effect:
                raise UsageError(f"--{name.replace('_', '-')} {why}")


def absolute(place: str | None, names: Collection[str] = ()) -> str | None:
    """The absolute path of an existing file or directory. Other values, and `names`, stay as they are."""
    from gpt2cli.data.source import is_remote

    if not place or place in names or is_remote(place):
        return place
    path = paths.expand(place)
    return str(path.absolute()) if untrusted.is_file(path) or untrusted.is_directory(path) else place


def make_settings(values: dict[str, Any]) -> "Settings":
    """The settings from the values of all options. Raises UsageError for a value out of its bounds."""
    from gpt2cli.training.settings import Settings

    lora = LoRAConfig(values["lora_rank"], values["lora_alpha"]) if values["lora"] else None
    default_lr = lora.learning_rate if lora else TRAIN.learning_rate
    scratch = None
    if values["from_scratch"]:
        for name in SHAPE_OPTIONS:
            check(values[name] <= MAX_SIZE, name, f"at most {MAX_SIZE:,}", untrusted.shown(values[name]))
        scratch = GPTConfig(**{name: values[name] for name in (*SHAPE_OPTIONS, "dropout")})
    train = {name: values[name] for name in asdict(TRAIN) if name in values}
    train["learning_rate"] = default_lr if values["lr"] is None else values["lr"]
    return Settings(
        model=absolute(values["model"], (*PUBLISHED, TINY)),
        ckpt=absolute(values["ckpt"]),
        data=absolute(values["data"]),
        train=TrainConfig(**train),
        records=DataConfig(values["val_fraction"], test_fraction=0, subset=values["subset"], seed=values["seed"]),
        lora=lora,
        from_scratch=scratch,
        precision=values["precision"],
        grad_checkpointing=values["grad_checkpointing"],
        skip_bad=values["skip_bad"],
        columns=None if values["columns"] is None else parse_columns(values["columns"]),
        keep_states=values["keep_states"],
        template=None if values["template"] is None else read_template(values["template"]).to_dict(),
        sample_prompts=tuple(values["sample_prompt"] or ()),
        out=str(paths.expand(values["out"]).absolute()),
        wandb_project=values["wandb_project"] if values["wandb"] else None,
    )


def check_before_training(asked: "Settings", run: str | None, *, resume: bool, force: bool, device: str) -> None:
    """Raise the errors of a run that need neither torch nor a network: wrong names, wrong files, a wrong place.

    run    the value of RUN or --run-dir
    force  whether the file at `asked.out` may be replaced
    """
    from gpt2cli.checkpoints.model_spec import ModelSpec
    from gpt2cli.data.source import check_data
    from gpt2cli.training.run_lock import is_locked
    from gpt2cli.training.runs import check_any_run, check_new_run, check_run, find_run

    path, out = paths.expand(run).absolute() if run else None, Path(asked.out)
    if resume:
        check_any_run() if run is None else check_run(find_run(run))
        return
    if path is None or path not in out.parents:  # the run makes its directory
        check_checkpoint(out)
    check_free(out, force)
    # torchrun's first process may have begun the run, and begin() names a process that works on it
    if path is not None and os.environ.get("RANK", "0") == "0" and not is_locked(path):
        check_new_run(path)
    if asked.data is not None:
        check_data(asked.data)
    if asked.from_scratch is None:
        ModelSpec(asked.model, asked.ckpt, device).check()
