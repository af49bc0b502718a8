"""Which run, settings and checkpoint --resume takes."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from gpt2cli.config import GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.training import run_directory
from gpt2cli.training.begin import RunOptions, begin
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.resuming import check_settings, differences, named_checkpoint, run_of, settings_of
from gpt2cli.training.run_checkpoints import Resumable
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.runs import is_done, read_summary
from gpt2cli.training.settings import Settings
from gpt2cli.training.state_json import Counters
from tests.training.records import settings_from
from tests.training.short_runs import carry_out, elsewhere, same, settings_in, steps

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
        said = str(caught.value)
        assert "--schedule cosine" in said and "with --keep-states and --schedule constant or wsd can be" in said
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


EPOCHS = frozenset({"epochs"})
LEVEL = 7
"""The steps of a run of two epochs, which are 12, before its learning rate falls; 14 in one of four epochs."""


@pytest.fixture(autouse=True, scope="module")
def no_plots() -> Iterator[None]:
    with patch.object(run_directory, "plot_losses", lambda metrics, out: None):
        yield


def falling(work: Path, **changes) -> Settings:
    """A run of two epochs whose learning rate falls at its end, and which keeps its checkpoints."""
    changes = {"schedule": "wsd", "dropout": 0.2, "eval_every": 2, "save_every": 1} | changes
    return replace(elsewhere(settings_in(work), "out.pt", **changes), keep_states=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, no_plots: None) -> Path:
    """The directory of a run of four epochs that nothing happened to. `out.pt` is beside it."""
    work = tmp_path_factory.mktemp("whole")
    carry_out(falling(work, epochs=4), work / "run")
    return work / "run"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, no_plots: None) -> Path:
    """The directory with a run of two epochs, `run`, that is done, and with all that belongs to it."""
    work = tmp_path_factory.mktemp("done")
    carry_out(falling(work), work / "run")
    return work


MOVED = {"resume": True, "force": True}
"""A run that was moved did not write the file at its `out`."""


def moved(done: Path, tmp_path: Path) -> Settings:
    """Copy a run that is done into `tmp_path`. Returns its settings there."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    for file in ("config.json", "summary.json"):
        path = tmp_path / "run" / file
        path.write_text(path.read_text().replace(str(done), str(tmp_path)))
    return falling(tmp_path)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def losses(run: Path) -> dict[str, object]:
    """The figures in the summary that do not depend on the time."""
    summary = read_summary(run)
    return {name: summary[name] for name in ("final_val_loss", "best_val_loss", "best_val_step", "steps", "reason")}


def assert_equal(run: Path, whole: Path) -> None:
    """A run that was extended equals a longer one: steps, final weights and best weights."""
    assert is_done(run) and losses(run) == losses(whole)
    assert steps(run) == steps(whole) and len(steps(run)) == 24
    assert same(run.with_name("out.pt"), whole.with_name("out.pt"))
    assert (run / "best.pt").exists() == (whole / "best.pt").exists()
    if (run / "best.pt").exists():
        assert same(run / "best.pt", whole / "best.pt")


def test_the_checkpoint_from_before_the_fall_stays_beside_the_newest(done):
    assert names(done / "run") == [f"step-{step:08d}" for step in (LEVEL, 11, 12)]


def test_a_run_is_extended_from_before_the_fall(done, whole, tmp_path):
    run, short = tmp_path / "run", moved(done, tmp_path)
    longer = elsewhere(short, "out.pt", epochs=4)
    note = f"going on from step {LEVEL}, before the learning rate fell"
    assert carry_out(longer, run, **MOVED, stop_after=17, given=EPOCHS) == [note]
    assert names(run) == [f"step-{step:08d}" for step in (14, 15, 16)]
    assert not is_done(run) and json.loads((run / "config.json").read_text())["train"]["epochs"] == 4
    assert carry_out(short, run, **MOVED) == []  # no setting is given: the new length is known
    assert_equal(run, whole)


def test_a_run_with_muon_and_adapters_is_extended_from_before_the_fall(tmp_path):
    carry_out(elsewhere(settings_in(tmp_path), "base.pt", max_steps=1), tmp_path / "base")
    short = falling(tmp_path, optimizer="muon", save_every=None)
    short = replace(short, from_scratch=None, ckpt=str(tmp_path / "base.pt"), lora=LoRAConfig(rank=2))
    carry_out(elsewhere(short, "whole.pt", epochs=4), tmp_path / "whole")
    carry_out(short, tmp_path / "run")
    assert names(tmp_path / "run") == [f"step-{step:08d}" for step in (LEVEL, 12)]
    carry_out(elsewhere(short, "out.pt", epochs=4), tmp_path / "run", resume=True, given=EPOCHS)
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")
    assert same(tmp_path / "out.pt", tmp_path / "whole.pt")
    files = [tmp_path / name / "best-adapter" / "adapter_model.safetensors" for name in ("run", "whole")]
    tensors = [load_file(file) for file in files]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3, 30])
def test_a_run_that_is_killed_while_it_is_extended_goes_on(done, whole, tmp_path, killed_after):
    """0 events: after its config is written; 1: after its files are cut back; 2: after a step; 3: in a save."""
    short = moved(done, tmp_path)
    longer = elsewhere(short, "out.pt", epochs=4)
    carry_out(longer, tmp_path / "run", **MOVED, killed_after=killed_after, given=EPOCHS)
    carry_out(short, tmp_path / "run", **MOVED)
    assert_equal(tmp_path / "run", whole)


@pytest.mark.parametrize("killed_after", [10, 18, 28])
def test_a_run_that_is_killed_before_or_in_its_fall_goes_on_and_is_extended(done, whole, tmp_path, killed_after):
    """18: as the checkpoint from before the fall has been written."""
    short = falling(tmp_path)
    carry_out(short, tmp_path / "run", killed_after=killed_after)
    shutil.copytree(tmp_path / "run", tmp_path / "same" / "run")
    carry_out(elsewhere(short, "out.pt", epochs=4), tmp_path / "run", resume=True, given=EPOCHS)
    assert_equal(tmp_path / "run", whole)
    carry_out(short, tmp_path / "same" / "run", resume=True, force=True)
    assert steps(tmp_path / "same" / "run") == steps(done / "run")
    assert same(tmp_path / "out.pt", done / "out.pt")


def test_a_run_that_is_extended_twice_equals_a_longer_one(whole, tmp_path):
    short = falling(tmp_path, max_steps=6)
    carry_out(short, tmp_path / "run")
    for step in (12, 24):
        longer = elsewhere(short, "out.pt", max_steps=step)
        carry_out(longer, tmp_path / "run", resume=True, given=frozenset({"max_steps"}))
    assert_equal(tmp_path / "run", whole)


def test_best_weights_from_the_fall_are_not_those_of_the_longer_run(tmp_path):
    """Every evaluation after the fall is worse than those before it, so those before it count."""
    short = falling(tmp_path, save_every=4)
    carry_out(short, tmp_path / "run")
    kept = tmp_path / "run" / "checkpoints" / f"step-{LEVEL:08d}" / "best.pt"
    assert not same(kept, tmp_path / "run" / "best.pt")  # the fall made it better
    longer = elsewhere(short, "out.pt", epochs=4)
    carry_out(longer, tmp_path / "run", resume=True, killed_after=1, given=EPOCHS)
    assert same(kept, tmp_path / "run" / "best.pt")


def test_without_a_whole_checkpoint_from_before_the_fall_a_run_cannot_be_extended(done, tmp_path):
    longer = elsewhere(moved(done, tmp_path), "out.pt", epochs=4)
    (tmp_path / "run" / "checkpoints" / f"step-{LEVEL:08d}" / "weights.safetensors").write_bytes(b"damaged")
    why = r"its learning rate had begun to fall before step 12, and it has no whole checkpoint from before\."
    with pytest.raises(CheckpointError, match=why):
        carry_out(longer, tmp_path / "run", **MOVED, given=EPOCHS)
    with pytest.raises(CheckpointError, match="its learning rate had begun to fall before step 11"):
        named = tmp_path / "run" / "checkpoints" / "step-00000011"
        carry_out(longer, named, **MOVED, given=EPOCHS)
    assert is_done(tmp_path / "run")


@pytest.mark.parametrize("changes", [{"cooldown": 1.0}, {"warmup": 9}], ids=str)
def test_a_run_without_a_level_part_keeps_no_checkpoint_for_it(tmp_path, changes):
    short = falling(tmp_path, save_every=4, **changes)
    carry_out(short, tmp_path / "run")
    assert names(tmp_path / "run") == ["step-00000008", "step-00000012"]
    with pytest.raises(CheckpointError, match=r"cannot extend .*: its (warm-up|learning rate)"):
        carry_out(elsewhere(short, "out.pt", epochs=4), tmp_path / "run", resume=True, given=EPOCHS)


def test_a_shorter_run_must_hold_the_level_steps(tmp_path):
    short = falling(tmp_path, epochs=4)
    carry_out(short, tmp_path / "run", stop_after=10)
    with pytest.raises(CheckpointError, match=r"has taken 9 steps, and with the new length .* falls after step 7"):
        carry_out(elsewhere(short, "out.pt", epochs=2), tmp_path / "run", resume=True, given=EPOCHS)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["epochs"] == 4


def test_a_length_that_does_not_fit_is_refused_before_a_step_to_go_on_from_is_named(done, tmp_path):
    shorter = elsewhere(moved(done, tmp_path), "out.pt", max_steps=LEVEL + 3)
    options = RunOptions(path=tmp_path / "run", device="cpu", given=frozenset({"max_steps"}), **MOVED)
    notes = []
    with (
        pytest.raises(CheckpointError, match=f"has taken {LEVEL} steps, and .* falls after step {LEVEL - 1}"),
        begin(shorter, options, Ranks(), lambda event: notes.append(event.text)),
    ):
        pass
    assert notes == []


def test_a_run_of_one_step_has_no_fall(tmp_path):
    carry_out(falling(tmp_path, max_steps=1, warmup=None), tmp_path / "run")
    longer = falling(tmp_path, max_steps=2, warmup=None)
    carry_out(longer, tmp_path / "run", resume=True, given=frozenset({"max_steps"}))
    assert [step[3] for step in steps(tmp_path / "run")] == [1e-2, 1e-2]


def test_runs_of_versions_without_a_setting_had_its_default():
    for name, other in (("optimizer", "muon"), ("cooldown", 0.2)):
        assert differences({"seed": 0}, {"seed": 0, name: getattr(TrainConfig, name)}) == []
        [changed] = differences({"seed": 0}, {"seed": 0, name: other})
        assert changed == f"{name} was {getattr(TrainConfig, name)!r}, is {other!r}"
    values = json.loads(json.dumps(SETTINGS.as_dict()))
    del values["train"]["cooldown"], values["train"]["optimizer"]
    assert Settings.from_dict(values) == SETTINGS
