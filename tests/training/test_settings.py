"""The settings of a run are written to config.json and read back."""

import json

import pytest

from gpt2cli.config import GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.training.settings import Settings
from tests.training.records import settings_from

SETTINGS = settings_from(
    "gpt2",
    data="data.json",
    train=TrainConfig(max_steps=4),
    lora=LoRAConfig(),
    from_scratch=GPTConfig(),
    sample_prompts=("a",),
    columns={"instruction": "question", "output": "answer"},
)


def stored() -> dict:
    return json.loads(json.dumps(SETTINGS.as_dict()))


def test_settings_come_back_as_they_were():
    assert Settings.from_dict(stored()) == SETTINGS


def test_the_columns_of_an_earlier_version_are_found_by_their_names():
    values = stored()
    del values["columns"]
    assert Settings.from_dict(values).columns is None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(("precision", value) for value in ({}, [], None, 7, True)),
        *(("out", value) for value in (None, 7, ["x"], "a\x00b")),
        *(("data", value) for value in (7, {}, "a\x00b")),
        *(("sample_prompts", value) for value in ("text", [7], None, {"a": 1}, [["a"]])),
        *(("skip_bad", value) for value in ("yes", 1, None)),
        *(("columns", value) for value in ("a", ["a"], {"question": "a"}, {"output": 7}, {"output": ""})),
        ("columns", {"instruction": "a", "output": "a"}),
        *(("train", value) for value in (None, [], "x", {"more": 1})),
        *(("lora", value) for value in ([], 7, {"rank": "x"}, {"alpha": None}, False)),
        *(("from_scratch", value) for value in ([], {"n_layer": 1.5}, {"n_layer": 10**30})),
        *(("records", value) for value in (None, {"subset": "x"}, {"val_fraction": True})),
        *(("train.epochs", value) for value in ("3", 2.5, None, True, -1, 10**30)),
        *(("train.learning_rate", value) for value in ("x", None, 10**400, -1.0, [])),
        *(("train.optimizer", value) for value in ("sgd", None, [], {})),
        *(("train.max_length", value) for value in ("x", 1.5, 0)),
        ("more", 1),
        ("\x1b[31m", 1),
    ],
    ids=str,
)
def test_a_value_that_no_setting_has_is_an_error(place, value):
    values = stored()
    table, _, name = place.rpartition(".")
    (values[table] if table else values)[name] = value
    with pytest.raises(CheckpointError, match=r"config\.json is not one of gpt2 finetune") as raised:
        Settings.from_dict(values)
    assert len(str(raised.value)) < 300 and str(raised.value).isprintable()


@pytest.mark.parametrize(
    "name", ["model", "ckpt", "data", "train", "records", "lora", "from_scratch", "sample_prompts"]
)
def test_a_setting_that_is_missing_is_named(name):
    values = stored()
    del values[name]
    with pytest.raises(CheckpointError, match=name):
        Settings.from_dict(values)
