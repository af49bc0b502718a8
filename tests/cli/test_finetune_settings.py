"""The settings of a run, from options and from the file of `--config`: the same names, values and defaults."""

import json
from dataclasses import Field, asdict, fields
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.bounds import choices
from gpt2cli.cli.app import app
from gpt2cli.cli.commands.finetune import was_given
from gpt2cli.cli.finetune_settings import given_names, groups_of, make_settings, refuse_idle
from gpt2cli.cli.setting_places import all_places, group_at, places_of
from gpt2cli.cli.settings_file import read_settings
from gpt2cli.cli.typer_internals import is_option, value_type
from gpt2cli.config import LORA_RATE, LoRAConfig
from gpt2cli.errors import CheckpointError, UsageError
from gpt2cli.training.resuming import settings_of
from gpt2cli.training.settings import Settings

FINETUNE = typer.main.get_command(app).commands["finetune"]  # type: ignore[attr-defined]
NOT_SETTINGS = {
    *("config", "run_dir", "resume", "force", "dry_run", "compile", "json", "verbose", "device", "threads"),
    *("offline", "quiet", "debug", "help"),
}
OPTIONS = {param.name: param for param in FINETUNE.params if is_option(param) and param.name not in NOT_SETTINGS}
TEXTS = {
    "columns": ["output=answer", "instruction=a, b,output=c=d"],
    "template": ["alpaca", "seed"],
    "out": ["x.pt", "a/b.safetensors", "/tmp/größe.pt"],
    "n_head": [1, 2, 3, 4],
    "n_embd": [12, 24, 48],
    "sample_prompt": ["Name a colour.", "{input}\n"],
}


def words_of(name: str) -> st.SearchStrategy[list[str]]:
    """Ways to type an option."""
    param = OPTIONS[name]
    kind = value_type(param)
    if kind is bool:
        return st.sampled_from([[flag] for flag in (*param.opts, *param.secondary_opts)])
    allowed = choices(field_of(name).type)
    values: Any = st.sampled_from(TEXTS.get(name) or allowed or ["one", "two/three", "tiny", "lessons"])
    if name not in TEXTS and kind in (int, float):
        values = st.integers(2, 1000) if kind is int else st.floats(0.001, 0.9)
    return values.map(lambda value: [max(param.opts, key=len), str(value)])


def field_of(option: str) -> Field[Any]:
    """The setting of an option."""
    group, _, name = places_of(option)[0].rpartition(".")
    return next(each for each in fields(group_at(group) if group else Settings) if each.name == name)


lines = st.sets(st.sampled_from(sorted(OPTIONS))).flatmap(
    lambda names: st.tuples(*(words_of(name) for name in sorted(names))).map(lambda parts: [*chain(*parts)])
)


def typed(line: list[str]) -> dict[str, Any]:
    """The values of the options that are typed."""
    context = FINETUNE.make_context("finetune", list(line))
    return {name: value for name, value in context.params.items() if was_given(context, name)}


def stored(asked: Settings) -> dict[str, Any]:
    return json.loads(json.dumps(asked.as_dict()))


def value_at(values: dict[str, Any], place: str) -> Any:
    group, _, name = place.rpartition(".")
    return (values[group] or {}).get(name) if group else values[name]


def test_every_option_of_a_run_sets_a_setting():
    assert {name for name in OPTIONS if not places_of(name)} == {"lora", "from_scratch", "wandb"}
    assert not any(map(places_of, NOT_SETTINGS))
    without_option = {place for place, option in all_places().items() if option not in OPTIONS}
    assert without_option == {
        *("records.test_fraction", "lora.learning_rate"),
        *("from_scratch.vocab_size", "from_scratch.layer_norm_epsilon", "from_scratch.tied"),
    }


def test_settings_without_options_or_a_file_are_the_defaults_that_the_help_page_shows():
    asked = make_settings({}, {})
    assert asked == Settings(out=str(Path(Settings.out).absolute()))
    defaults = {name: param.default for name, param in OPTIONS.items() if places_of(name)}
    unset = {"lr", "sample_prompt", "wandb_project", "n_layer", "n_head", "n_embd", "block_size", "out"}
    unset |= {"lora_rank", "lora_alpha"}
    for name in defaults.keys() - unset:
        assert value_at(asked.as_dict(), places_of(name)[0]) == defaults[name], name


@settings(max_examples=300, deadline=None)
@given(lines)
def test_a_run_has_the_settings_of_the_config_that_an_equal_run_wrote(line):
    asked = make_settings(typed(line), {})
    assert make_settings({}, stored(asked)) == asked


@settings(max_examples=300, deadline=None)
@given(lines, lines)
def test_an_option_wins_over_the_file(of_file, line):
    config, options = stored(make_settings(typed(of_file), {})), typed(line)
    asked = make_settings(options, config)
    groups = {"lora": asked.lora is not None, "from_scratch": asked.from_scratch is not None}
    alone = make_settings(options | groups | {"wandb": asked.wandb_project is not None}, {})
    replaced = {place for name in options for place in places_of(name)}
    for place in all_places():
        if place in replaced:
            assert value_at(asked.as_dict(), place) == value_at(alone.as_dict(), place), place
        elif not options.keys() & {"model", "ckpt", "from_scratch", "lora", "epochs", "wandb"}:
            assert value_at(asked.as_dict(), place) == value_at(config, place), place
    for name in ("lora", "from_scratch"):
        assert options.get(name, groups[name]) == groups[name]


def test_what_a_file_lacks_has_the_defaults_of_the_options():
    assert make_settings({}, {"lora": {}}) == make_settings({"lora": True}, {})
    assert make_settings({}, {"lora": {}}).train.learning_rate == LORA_RATE
    assert make_settings({"lora": True}, {"train": {"epochs": 2}}).train.learning_rate == LORA_RATE
    assert make_settings({"lora": False}, {"lora": {}}) == make_settings({}, {})
    assert make_settings({"lora_rank": 4}, {"lora": {"alpha": 2}}).lora == LoRAConfig(4, 2)
    assert make_settings({"lora": True}, {"train": {"learning_rate": 1e-3}}).train.learning_rate == 1e-3
    assert make_settings({}, {"train": {"seed": 3}}) == make_settings({"seed": 3}, {})
    assert make_settings({}, {"records": {"subset": 3}}) == make_settings({"subset": 3}, {})
    dropped = make_settings({}, {"train": {"dropout": 0.3}, "from_scratch": {"n_layer": 2}})
    assert dropped == make_settings({"dropout": 0.3, "from_scratch": True, "n_layer": 2}, {})
    assert make_settings({}, {"wandb_project": "p"}).wandb_project == "p"
    assert make_settings({"wandb": False}, {"wandb_project": "p"}).wandb_project is None


def test_options_replace_what_the_file_says_about_the_same():
    assert make_settings({"epochs": 2}, {"train": {"max_steps": 9}}).train.max_steps is None
    assert make_settings({"epochs": 2, "max_steps": 8}, {"train": {"max_steps": 9}}).train.max_steps == 8
    for start in ({"model": "gpt2"}, {"ckpt": "x.pt", "model": "gpt2"}, {"from_scratch": {"n_layer": 2}}):
        for option in ({"model": "tiny"}, {"ckpt": "y.pt"}, {"model": "tiny", "ckpt": "y.pt"}):
            assert make_settings(option, start) == make_settings(option, {})
    assert make_settings({"from_scratch": True}, {"model": "gpt2"}) == make_settings({"from_scratch": True}, {})
    shape = make_settings({"from_scratch": True, "n_head": 6}, {"from_scratch": {"n_layer": 2}}).from_scratch
    assert shape is not None and (shape.n_layer, shape.n_head) == (2, 6)


def test_a_new_model_needs_no_adapter():
    asked = make_settings({"lora": False, "from_scratch": True}, {"lora": {}, "model": "gpt2"})
    given = given_names({"lora", "from_scratch"}, asked)
    refuse_idle(given, asked.lora is not None, asked.from_scratch is not None, "cosine")
    with pytest.raises(UsageError, match="--lora is for an existing model"):
        refuse_idle({"lora"}, True, True, "cosine")


def test_the_settings_of_a_file_are_not_changed():
    config = stored(Settings())
    make_settings({"lr": 1.0, "epochs": 7, "lora": True, "model": "tiny"}, config)
    assert config == stored(Settings())


def test_a_file_gives_what_differs_from_the_defaults():
    assert given_names({"lr", "wandb"}, None) == {"learning_rate", "wandb_project"}
    config = make_settings({}, {"train": {"loss_on": "all", "epochs": 3}, "lora": {"rank": 3}})
    adapter = {"lora", "lora_rank", "lora_alpha", "lora_learning_rate"}
    assert given_names({"epochs"}, config) == {"epochs", "loss_on", "learning_rate", *adapter}
    assert given_names((), make_settings({}, stored(Settings()))) == frozenset()


@pytest.mark.parametrize(
    ("begun", "options", "refused"),
    [
        ({"lora": {"rank": 8}}, {"lora_rank": 4}, "lora_rank was 8, is 4"),
        ({"lora": {"rank": 8}}, {"lora_rank": 16}, "lora_rank was 8, is 16"),
        ({"lora": {"rank": 16}}, {"lora_rank": 8}, "lora_rank was 16, is 8"),
        ({"lora": {"rank": 8}}, {"lora_rank": 8}, None),
        ({"lora": {"alpha": 8.0}}, {"lora_alpha": 9.0}, "lora_alpha was 8.0, is 9.0"),
        ({}, {"lora_rank": 16}, "lora_rank was None, is 16"),
        ({"from_scratch": {}}, {"n_layer": 3}, "n_layer was 12, is 3"),
        ({"from_scratch": {"n_layer": 3}}, {"n_layer": 12}, "n_layer was 3, is 12"),
        ({"from_scratch": {"n_layer": 3}}, {"n_layer": 3}, None),
        ({}, {"block_size": 1024}, "block_size was None, is 1024"),
        ({"from_scratch": {}}, {"n_head": 5}, "n_head was 12, is 5"),
        ({"from_scratch": {}}, {"n_embd": 100}, "n_embd was 768, is 100"),
        ({"from_scratch": {}}, {"n_embd": 100, "n_head": 5}, "n_embd was 768, is 100; n_head was 12, is 5"),
        ({"from_scratch": {"n_head": 6}}, {"n_head": 6}, None),
    ],
    ids=str,
)
def test_a_resumed_run_refuses_another_adapter_or_shape(tmp_path, begun, options, refused):
    then = make_settings({}, begun)
    (tmp_path / "config.json").write_text(json.dumps(stored(then)))
    asked, given = make_settings(options, groups_of(options)), given_names(options, None)
    if refused is None:
        assert settings_of(tmp_path, asked, given) == then
        return
    with pytest.raises(CheckpointError, match=f"with other settings: {refused}: leave them out"):
        settings_of(tmp_path, asked, given)


@pytest.mark.parametrize(
    ("options", "config", "says"),
    [
        ({"lr": -1.0}, {}, "--lr must be a finite number above 0, not -1.0 (see `gpt2 finetune --help`)"),
        ({"lora_rank": 0}, {"lora": {}}, "--lora-rank must be 1 or more, not 0"),
        ({"epochs": 2**64}, {}, "--epochs must be a whole number from 0 to 2^63 - 1, not 18446744073709551616"),
        ({"from_scratch": True, "n_layer": 2**30}, {}, "--n-layer must be at most 16,777,216, not 1073741824"),
        ({"n_embd": 100}, {"from_scratch": {}}, "--n-embd 100 cannot be divided among n_head 12 heads"),
        ({"n_head": 7}, {"from_scratch": {}}, "from_scratch.n_embd 768 cannot be divided among n_head 7 heads"),
        (
            {"val_fraction": 0.5},
            {"records": {"test_fraction": 0.5}},
            "--val-fraction + records.test_fraction must be below 1, not more",
        ),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_as_the_user_gave_it(options, config, says):
    with pytest.raises(UsageError) as raised:
        make_settings(options, config)
    assert str(raised.value).startswith(says)


def test_every_field_of_the_groups_can_be_in_a_file(tmp_path):
    file = tmp_path / "all.json"
    values = stored(make_settings({"from_scratch": True}, {}))
    assert all(set(values[name]) == {each.name for each in fields(kind)} for name, kind in GROUPS.items())
    file.write_text(json.dumps(values))
    assert read_settings(str(file), ()) == values
    file.write_text(json.dumps(stored(make_settings({"lora": True}, {}))))
    assert read_settings(str(file), ())["lora"] == asdict(LoRAConfig())


GROUPS = {name: type(getattr(Settings(), name)) for name in ("train", "records")}
