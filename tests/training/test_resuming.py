"""Which run, settings and checkpoint --resume takes."""

from dataclasses import replace

import pytest

from gpt2cli.config import GPTConfig, TrainConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.training.resuming import check_settings, named_checkpoint, run_of, settings_of
from gpt2cli.training.run_checkpoints import Resumable
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.state_json import Counters
from tests.training.records import settings_from

SETTINGS = settings_from("gpt2", train=TrainConfig(epochs=8), out="/tmp/out.pt")


@pytest.mark.parametrize("name", ["run", "step-one", "step-00000004", "checkpoints/step-00000004"])
def test_a_run_may_have_any_name(tmp_path, monkeypatch, name):
    run = tmp_path / name
    checkpoint = run / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    (run / "config.json").touch()
    assert run_of(run) == run and named_checkpoint(run) is None
    assert run_of(checkpoint) == run and named_checkpoint(checkpoint) == checkpoint
    monkeypatch.chdir(run.parent)
    assert run_of(run.relative_to(run.parent)).absolute() == run
    monkeypatch.chdir(checkpoint.parent)
    assert run_of(checkpoint.relative_to(checkpoint.parent)) == run


def begun(path) -> None:
    with RunDirectory(path) as run:
        run.write_config(SETTINGS.as_dict())


def test_more_training_than_before_names_the_way(tmp_path):
    begun(tmp_path)
    for changes, option in (
        ({"epochs": 10}, "--epochs 2"),
        ({"epochs": 3}, "--epochs 3"),
        ({"max_steps": 7}, "--max-steps 7"),
    ):
        asked = replace(SETTINGS, train=replace(SETTINGS.train, **changes))
        with pytest.raises(CheckpointError, match=f"gpt2 finetune --ckpt /tmp/out.pt {option} --out FILE$") as caught:
            settings_of(tmp_path, asked, frozenset(changes))
        assert "--schedule cosine" in str(caught.value) and "--schedule constant --keep-states" in str(caught.value)
    assert settings_of(tmp_path, replace(SETTINGS, out="x.pt"), {"out"}).out == "x.pt"


@pytest.mark.parametrize(
    "change", [{"train": TrainConfig(epochs=8, dropout=0.2)}, {"from_scratch": GPTConfig(n_embd=2**23 * 12)}]
)
def test_changed_settings_are_known_before_a_model_is_made(tmp_path, change):
    before = replace(SETTINGS, from_scratch=GPTConfig())
    identity = before.identity() | {"n_embd": 768, "n_layer": 12, "data": "abc"}
    found = Resumable(path=tmp_path, weights={}, optimizer={}, counters=Counters(), identity=identity)
    check_settings(before, found)
    with pytest.raises(CheckpointError, match=r"cannot resume .* (dropout|n_embd) was"):
        check_settings(replace(before, **change), found)
