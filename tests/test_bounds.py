"""The configs check their fields, and an option says the same about a field as the config does."""

import inspect
import math
from dataclasses import fields
from typing import get_args

import pytest
import typer

from gpt2cli.cli.commands.finetune import finetune
from gpt2cli.config import BenchConfig, DataConfig, EvaluationConfig, GPTConfig, LoRAConfig, SamplingConfig, TrainConfig
from gpt2cli.errors import UsageError

CONFIGS = (GPTConfig, SamplingConfig, TrainConfig, LoRAConfig, DataConfig, EvaluationConfig, BenchConfig)
WRONG = [
    *((GPTConfig, {name: value}) for name in ("n_layer", "n_embd", "vocab_size") for value in (0, 1.5, True)),
    *(
        (TrainConfig, {name: 0})
        for name in ("epochs", "max_steps", "batch_size", "grad_accum", "learning_rate", "clip")
    ),
    *((TrainConfig, {name: -1}) for name in ("warmup", "eval_every", "sample_every", "save_every", "patience", "seed")),
    *((TrainConfig, {name: math.nan}) for name in ("learning_rate", "weight_decay", "clip", "dropout")),
    *((TrainConfig, {name: math.inf}) for name in ("learning_rate", "weight_decay")),
    *((TrainConfig, {name: "other"}) for name in ("optimizer", "schedule", "loss_on")),
    *((TrainConfig, change) for change in ({"max_length": 1}, {"dropout": 1}, {"seed": 2**63})),
    *((LoRAConfig, change) for change in ({"rank": 0}, {"alpha": 0}, {"alpha": math.inf})),
    *((DataConfig, change) for change in ({"val_fraction": 1}, {"test_fraction": -0.1}, {"subset": 0})),
    *((EvaluationConfig, change) for change in ({"stride": 0}, {"answers": -1}, {"resamples": 0})),
    *((BenchConfig, change) for change in ({"prompt_tokens": 0}, {"new_tokens": 1}, {"repeats": 0})),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_defaults_are_within_their_bounds(config):
    config()


@pytest.mark.parametrize(("config", "change"), WRONG, ids=str)
def test_a_value_out_of_bounds_is_named(config, change):
    [(name, _)] = change.items()
    with pytest.raises(UsageError, match=f"^(lora_)?{name} must be "):
        config(**change)


def test_each_option_of_finetune_has_the_name_the_default_and_the_help_of_its_field():
    parameters = inspect.signature(finetune).parameters
    seen = set()
    for config in (TrainConfig, LoRAConfig, DataConfig, GPTConfig):
        for field in fields(config):
            if not field.metadata or not field.metadata["help"]:
                continue
            name = {"learning_rate": "lr"}.get(field.name, field.metadata["name"] or field.name)
            parameter = parameters[name]
            annotation, option = get_args(parameter.annotation)
            assert isinstance(option, typer.models.OptionInfo)
            assert option.default == f"--{name.replace('_', '-')}"  # Typer takes the first name from here
            assert parameter.default == (None if name == "lr" else field.default)
            assert option.help == field.metadata["help"]
            assert (type(None) in get_args(annotation)) == (parameter.default is None)
            seen.add(name)
    assert len(seen) == 28
