"""The file of `gpt2 finetune --config`: what is wrong in it is named, with its place and what to write instead."""

import json
import os
from pathlib import Path

import pytest

from gpt2cli.cli.settings_file import read_settings
from gpt2cli.errors import UsageError

OPTIONS = ("device", "run_dir", "lr", "lora")
UNKNOWN = {
    '{"train": {"learning_rat": 1}}': "train.learning_rat: did you mean train.learning_rate?",
    '{"train": {"Epochs": 1}}': "train.Epochs: did you mean train.epochs?",
    '{"trian": {}}': "trian: did you mean train?",
    '{"outt": "x.pt"}': "outt: did you mean out?",
    '{"batch_sise": 1}': "batch_sise: did you mean train.batch_size?",
    '{"lr": 1}': 'lr: write it as {"train": {"learning_rate": ...}}',
    '{"train": {"lr": 1}}': 'train.lr: write it as {"train": {"learning_rate": ...}}',
    '{"--lr": 1}': '--lr: write it as {"train": {"learning_rate": ...}}',
    '{"batch_size": 1}': 'batch_size: write it as {"train": {"batch_size": ...}}',
    '{"grad-accum": 1}': 'grad-accum: write it as {"train": {"grad_accum": ...}}',
    '{"train.epochs": 1}': 'train.epochs: write it as {"train": {"epochs": ...}}',
    '{"lora_rank": 1}': 'lora_rank: write it as {"lora": {"rank": ...}}',
    '{"lora": {"lora_rank": 1}}': 'lora.lora_rank: write it as {"lora": {"rank": ...}}',
    '{"records": {"epochs": 1}}': 'records.epochs: write it as {"train": {"epochs": ...}}',
    '{"train": {"data": "x"}}': 'train.data: write it as {"data": ...}',
    '{"sample_prompt": "x"}': 'sample_prompt: write it as {"sample_prompts": ...}',
    '{"n-layer": 1}': 'n-layer: write it as {"from_scratch": {"n_layer": ...}}',
    '{"device": "cpu"}': "device: it is not a setting of a run: give --device on the command line",
    '{"run-dir": "x"}': "run-dir: it is not a setting of a run: give --run-dir on the command line",
    '{"qqq": 1}': "qqq: the config.json of a run has all settings",
    '{"\\u001b[31m": 1}': r"'\x1b[31m': the config.json of a run has all settings",
}
WRONG = {
    '{"train": {"learning_rate": -1}}': "train.learning_rate must be a finite number above 0, not -1",
    '{"train": {"learning_rate": NaN}}': "train.learning_rate must be a finite number above 0, not nan",
    '{"train": {"learning_rate": "1e-4"}}': "train.learning_rate must be a number, not '1e-4'",
    '{"train": {"learning_rate": null}}': "train.learning_rate must be a number, not null",
    '{"train": {"epochs": "3"}}': "train.epochs must be a whole number, not '3'",
    '{"train": {"epochs": 2.5}}': "train.epochs must be a whole number, not 2.5",
    '{"train": {"epochs": true}}': "train.epochs must be a whole number, not true",
    '{"train": {"epochs": -1}}': "train.epochs must be 1 or more, not -1",
    '{"train": {"max_steps": "x"}}': "train.max_steps must be a whole number or null, not 'x'",
    '{"train": {"schedule": "cos"}}': "train.schedule must be cosine, linear",
    '{"train": {"seed": -1}}': "train.seed must be from 0 to 2^63 - 1, not -1",
    '{"train": []}': "train must be an object, not a list",
    '{"train": null}': "train must be an object, not null",
    '{"lora": true}': "lora must be an object or null, not true",
    '{"lora": {"learning_rate": Infinity}}': "lora.learning_rate must be a finite number above 0, not inf",
    '{"precision": "fp61"}': "precision must be auto, fp32 or bf16, not 'fp61'",
    '{"skip_bad": 1}': "skip_bad must be true or false, not 1",
    '{"data": 7}': "data must be a text or null, not 7",
    '{"data": "a\\u0000b"}': "data contains a zero byte, which no path can",
    '{"sample_prompts": "x"}': "sample_prompts must be a list, not 'x'",
    '{"sample_prompts": ["x", 7]}': "sample_prompts[1] must be a text, not 7",
    '{"columns": {"question": "x"}}': "--columns cannot take 'x' as 'question'",
    '{"columns": {"output": 7}}': "columns.output must be a text, not 7",
    '{"template": {"with_input": "x"}}': "without_input is missing",
    '{"template": {"with_input": "{instruction}{input}", "without_input": "x"}}': "does not hold {instruction}",
    '{"from_scratch": {"n_layer": 99999999}}': "from_scratch.n_layer must be at most 16,777,216, not 99999999",
    '{"from_scratch": {"n_layer": 1.5}}': "from_scratch.n_layer must be a whole number of at least 1, not 1.5",
    '{"from_scratch": {"n_head": 7}}': "from_scratch.n_embd 768 cannot be divided among n_head 7 heads",
    '{"from_scratch": {"layer_norm_epsilon": NaN}}': "from_scratch.layer_norm_epsilon must be a finite number",
    '{"from_scratch": {}, "lora": {}}': "--lora is for an existing model, and --from-scratch makes a new one",
    '{"records": {"val_fraction": 0.5, "test_fraction": 0.5}}': "records.val_fraction + records.test_fraction must be",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


def refusal(file: Path | str) -> str:
    with pytest.raises(UsageError) as raised:
        read_settings(str(file), OPTIONS)
    message = str(raised.value)
    assert message.isprintable() and len(message) < 400 + len(str(file))
    return message


@pytest.mark.parametrize("text", UNKNOWN)
def test_an_unknown_setting_is_named_with_the_one_that_was_meant(text: str, file: Path) -> None:
    file.write_text(text)
    assert refusal(file) == f"{file}: there is no setting {UNKNOWN[text]}"


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_value_is_named_in_the_words_of_its_option(text: str, file: Path) -> None:
    file.write_text(text)
    assert refusal(file).startswith(f"{file}: ") and WRONG[text] in refusal(file)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "invalid at line 1, column 1"),
        (b"[1]", "settings.json is a list, not an object"),
        (b"null", "settings.json is null, not an object"),
        (b'{"a":\n  1 2}', "invalid at line 2, column 5"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"out": "caf\xe9"}', "not UTF-8 at byte 13"),
        (b"\xff\xfe\x00", "not UTF-16 at byte 3"),
        (b" " * 2**24 + b"{}", "has more than 16 MB"),
        (b'{"data":\n ' + b"9" * 5000 + b"}", "a number of too many digits"),
    ],
)
def test_a_file_without_an_object_is_refused(content: bytes, why: str, file: Path) -> None:
    file.write_bytes(content)
    assert refusal(file).startswith(f"{file} holds no settings (") and f"{why})" in refusal(file)


@pytest.mark.parametrize(
    ("text", "name"), [('{"out": "a.pt", "out": "b.pt"}', "out"), ('{"a": {"b": 1, "b": 1}}', "b")]
)
def test_a_setting_that_stands_twice_is_refused(text: str, name: str, file: Path) -> None:
    file.write_text(text)
    assert refusal(file).startswith(f"{file} holds no settings ({name} stands in it twice): ")


def test_a_file_from_windows_is_read(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{"train": {\r\n"epochs": 2}}')
    assert read_settings(str(file), OPTIONS) == {"train": {"epochs": 2}}


def test_settings_are_found_by_the_path_or_the_name_of_a_run(tmp_path: Path, home: Path) -> None:
    config = {"train": {"epochs": 2}}
    (home / "runs" / "20260101-quiz").mkdir(parents=True)
    (home / "runs" / "20260101-quiz" / "config.json").write_text(json.dumps(config))
    for choice in ("20260101-quiz", str(home / "runs" / "20260101-quiz"), f"{home}/runs/20260101-quiz/config.json"):
        assert read_settings(choice, OPTIONS) == config
    assert refusal("20260101-quis") == "20260101-quis is not there: did you mean 20260101-quiz? Otherwise give " + (
        "--config a JSON file or a run"
    )


def test_what_is_no_file_is_refused(tmp_path: Path, file: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} holds no run: it has no config.json"
    assert refusal(file) == f"{file} is not there: give --config a JSON file or a run"
    file.write_text("{}")
    assert f"did you mean {file}?" in refusal(tmp_path / "seting.json")
    os.mkfifo(tmp_path / "pipe.json")
    assert "is not an ordinary file" in refusal(tmp_path / "pipe.json")
    assert "cannot be the name of a file" in refusal("a\0b")
