"""The end of a run: what stays, where the weights are, and that a kill at any moment costs nothing."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from gpt2cli.config import DataConfig, LoRAConfig
from gpt2cli.errors import CheckpointError, DivergedError, ResourceError, UsageError
from gpt2cli.training import ending, run_directory, weights_writer
from gpt2cli.training.begin import RunOptions, begin
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.engine import train
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.runs import is_done, newest_run, read_summary
from gpt2cli.training.settings import Settings
from tests.training.records import FINISHED
from tests.training.short_runs import carry_out, elsewhere, same, settings_in, steps, weights


@pytest.fixture(autouse=True, scope="module")
def no_plots() -> Iterator[None]:
    """Plots take half of the time, and are tested elsewhere."""
    with patch.object(run_directory, "plot_losses", lambda metrics, out: None):
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, no_plots: None) -> dict[int, Path]:
    """The directories of runs of two and of three epochs that nothing happened to. `out.pt` is beside each."""
    runs = {}
    for epochs in (2, 3):
        work = tmp_path_factory.mktemp("unbroken")
        carry_out(elsewhere(settings_in(work), "out.pt", epochs=epochs), work / "run")
        runs[epochs] = work / "run"
    return runs


def test_a_run_that_is_done_keeps_what_is_worth_keeping(tmp_path, settings):
    run = tmp_path / "run"
    carry_out(settings, run)
    summary = read_summary(run)
    assert summary["out"] == settings.out
    better = summary["best_val_loss"] < summary["final_val_loss"]
    assert summary["best_weights"] == (str(run / "best.pt") if better else settings.out)
    assert (run / "best.pt").exists() == better
    assert not (run / "checkpoints").exists()


def test_weights_that_were_better_stay(tmp_path, settings):
    run = tmp_path / "run"
    carry_out(elsewhere(settings, "out.pt", learning_rate=3.0, clip=100.0, warmup=12), run)
    summary = read_summary(run)
    assert 0 < summary["best_val_step"] < summary["steps"]
    assert summary["best_weights"] == str(run / "best.pt") and (run / "best.pt").is_file()


def test_files_of_the_user_in_the_directory_stay(tmp_path, settings):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    mine = [run / "checkpoints" / "mine.txt", run / "best.pt", run / "model.py"]
    for file in mine:
        file.write_text("mine")
    carry_out(elsewhere(settings, "out.pt", save_every=0, max_steps=2), run)
    assert all(file.read_text() == "mine" for file in mine)
    carry_out(elsewhere(settings, "out2.pt", max_steps=2), tmp_path / "second")
    assert not (tmp_path / "second" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (weights_writer.FinalWeights, "save"),
        (RunDirectory, "write_out"),
        (weights_writer.WeightsWriter, "delete_best"),
        (ending, "delete_checkpoints"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_at_its_end_is_finished_by_resume(
    tmp_path, settings, unbroken, monkeypatch, owner, name, when
):
    real = getattr(owner, name)

    def killed(*args, **named):
        if when == "after":
            real(*args, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(owner, name, killed)
        carry_out(settings, tmp_path / "run")
    carry_out(settings, tmp_path / "run", resume=True)
    assert is_done(tmp_path / "run")
    assert same(settings.out, unbroken[2].with_name("out.pt"))
    assert steps(tmp_path / "run") == steps(unbroken[2])


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)], ids=["full", "lora"])
def test_weights_that_cannot_go_to_out_go_into_the_run(tmp_path, settings, lora):
    run, whole = tmp_path / "run", elsewhere(settings, "whole.pt", max_steps=3)
    if lora:
        carry_out(elsewhere(settings, "base.pt", max_steps=1), tmp_path / "base")
        whole = replace(whole, from_scratch=None, ckpt=str(tmp_path / "base.pt"), lora=lora)
    carry_out(whole, tmp_path / "whole")
    (tmp_path / "there").mkdir()
    lost = replace(whole, out=str(tmp_path / "there" / "out.pt"))
    with begin(lost, RunOptions(path=run, device="cpu"), Ranks(), print) as work:
        *_, finished = train(work.job)
        work.directory.handle(finished)
        (tmp_path / "there").rmdir()
        with pytest.raises(ResourceError, match=rf"cannot write .*the final weights are in {run}/final\.pt$"):
            work.write_weights(finished)
    assert same(run / "final.pt", whole.out)
    assert is_done(run) and read_summary(run)["out"] == str(run / "final.pt")
    [note] = carry_out(lost, run, resume=True)
    assert note == f"nothing to do: {run} is done, and its weights are in {run / 'final.pt'}"


def test_the_place_of_weights_in_a_relative_directory_does_not_depend_on_the_working_directory(
    tmp_path, settings, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "there" / "out.pt"
    out.parent.mkdir()
    options = RunOptions(path=Path("run"), device="cpu")
    with begin(replace(settings, out=str(out)), options, Ranks(), print) as run:
        *_, finished = train(run.job)
        run.directory.handle(finished)
        out.touch()
        with pytest.raises(ResourceError, match=r"final\.pt"):
            run.write_weights(finished)
    assert read_summary(tmp_path / "run")["out"] == str(tmp_path / "run" / "final.pt")


def test_a_file_that_appears_during_the_run_is_not_replaced(tmp_path, settings):
    with begin(settings, RunOptions(path=tmp_path / "run", device="cpu"), Ranks(), print) as work:
        *_, finished = train(work.job)
        work.directory.handle(finished)
        Path(settings.out).write_bytes(b"of somebody else")
        with pytest.raises(ResourceError, match=r"is there already.*the final weights are in"):
            work.write_weights(finished)
    assert Path(settings.out).read_bytes() == b"of somebody else"
    assert "wte.weight" in weights(tmp_path / "run" / "final.pt")


def test_only_the_run_that_wrote_a_file_replaces_it_without_force(tmp_path, settings):
    short = elsewhere(settings, "out.pt", max_steps=4)
    kept = replace(short, keep_states=True)
    carry_out(kept, tmp_path / "first")
    before = Path(settings.out).read_bytes()
    with pytest.raises(UsageError, match=r"is there already: use --force to replace it, or choose another --out"):
        carry_out(short, tmp_path / "second")
    assert Path(settings.out).read_bytes() == before
    assert not (tmp_path / "second").exists()
    longer = replace(kept, train=replace(kept.train, max_steps=6))
    carry_out(longer, tmp_path / "first", resume=True, given=frozenset({"max_steps"}))
    assert Path(settings.out).read_bytes() != before
    carry_out(short, tmp_path / "second", force=True)
    [note] = carry_out(longer, tmp_path / "second", resume=True)
    assert "nothing to do" in note
    with pytest.raises(UsageError, match="--force"):  # now it is the file of the second run
        carry_out(longer, tmp_path / "first", resume=True)


EPOCHS = frozenset({"epochs"})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_is_extended_equals_a_longer_one(tmp_path, settings, optimizer):
    short = replace(elsewhere(settings, "out.pt", optimizer=optimizer, dropout=0.2), keep_states=True)
    whole = replace(elsewhere(short, "whole.pt", epochs=4), keep_states=False)
    carry_out(whole, tmp_path / "whole")
    run = tmp_path / "run"
    carry_out(short, run)
    assert read_summary(run)["steps"] == 12
    longer = elsewhere(short, "out.pt", epochs=4)
    assert carry_out(longer, run, resume=True, stop_after=17, given=EPOCHS) == []
    assert not is_done(run) and json.loads((run / "config.json").read_text())["train"]["epochs"] == 4
    carry_out(settings, run, resume=True)  # no setting is given: the new length is known
    assert steps(run) == steps(tmp_path / "whole") and len(steps(run)) == 24
    assert same(settings.out, whole.out)
    assert is_done(run)
    carry_out(elsewhere(short, "out.pt", max_steps=30), run, resume=True, given=frozenset({"max_steps"}))
    assert len(steps(run)) == 30


def test_all_evaluations_of_an_extended_run_use_the_same_records(tmp_path, settings):
    short = replace(elsewhere(settings, "out.pt", epochs=1, eval_every=None), keep_states=True)
    short = replace(short, records=DataConfig(0.5, test_fraction=0))
    carry_out(short, tmp_path / "run")
    longer = elsewhere(short, "out.pt", epochs=40)
    options = RunOptions(path=tmp_path / "run", device="cpu", resume=True, given=EPOCHS)
    with begin(longer, options, Ranks(), print) as work:
        assert len(work.job.val) == work.job.resume.counters.val_records < work.job.held_out


def test_an_interrupted_run_is_extended_too(tmp_path, settings, unbroken):
    carry_out(settings, tmp_path / "run", stop_after=5)
    carry_out(elsewhere(settings, "out.pt", epochs=3), tmp_path / "run", resume=True, given=EPOCHS)
    assert steps(tmp_path / "run") == steps(unbroken[3])
    assert same(settings.out, unbroken[3].with_name("out.pt"))


@pytest.mark.parametrize("moment", ["reopen", "write_config"])
def test_an_extension_that_is_killed_as_it_begins_loses_nothing(tmp_path, settings, unbroken, monkeypatch, moment):
    short = replace(settings, keep_states=True)
    carry_out(short, tmp_path / "run")
    longer, real = elsewhere(short, "out.pt", epochs=3), getattr(RunDirectory, moment)

    def killed(*args):
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunDirectory, moment, killed)
        carry_out(longer, tmp_path / "run", resume=True, given=EPOCHS)
    assert not is_done(tmp_path / "run")
    carry_out(longer, tmp_path / "run", resume=True, given=EPOCHS)
    assert same(settings.out, unbroken[3].with_name("out.pt"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"schedule": "cosine"}, "its learning rate falls to 0 at its end"),
        ({"sampled_softmax": 100}, "its loss depends on its length"),
        ({"warmup": 30}, "its warm-up of 30 steps was not over after step 12"),
        ({"patience": 1, "learning_rate": 3.0}, "it stopped early"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_depends_on_the_length_forbids_to_change_it(tmp_path, settings, changes, why):
    short = replace(elsewhere(settings, "out.pt", **changes), keep_states=True)
    carry_out(short, tmp_path / "run")
    files = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file() and file.name[0] != "."}
    longer = elsewhere(short, "out.pt", epochs=5)
    with pytest.raises(CheckpointError, match=f"{why}.*gpt2 finetune --ckpt {settings.out} --data .* --epochs 3 --out"):
        carry_out(longer, tmp_path / "run", resume=True, given=EPOCHS)
    assert {file: file.read_bytes() for file in files} == files


def test_a_run_cannot_be_shorter_than_it_is(tmp_path, settings):
    carry_out(replace(settings, keep_states=True), tmp_path / "run")
    with pytest.raises(CheckpointError, match="it has taken 12 steps, and the length is now 6"):
        carry_out(elsewhere(settings, "out.pt", epochs=1), tmp_path / "run", resume=True, given=EPOCHS)
    assert is_done(tmp_path / "run")


def test_a_run_without_its_states_says_where_its_weights_are(tmp_path, settings):
    run, out = tmp_path / "run", Path(settings.out)
    short = elsewhere(settings, "out.pt", max_steps=6)
    carry_out(short, run)
    assert carry_out(short, run, resume=True) == [f"nothing to do: {run} is done, and its weights are in {out}"]
    with pytest.raises(UsageError, match=rf"to have its weights in {tmp_path}/new\.pt, copy {out}$"):
        carry_out(elsewhere(short, "new.pt"), run, resume=True, given=frozenset({"out"}))
    with pytest.raises(CheckpointError, match=r"its optimizer states were deleted.* --max-steps 3 --out FILE$"):
        longer = elsewhere(short, "out.pt", max_steps=9)
        carry_out(longer, run, resume=True, given=frozenset({"max_steps"}))
    out.unlink()
    with pytest.raises(CheckpointError, match=f"its weights are no longer in {out}"):
        carry_out(short, run, resume=True)


def test_a_run_that_diverged_has_failed(tmp_path, settings, home):
    hot = elsewhere(settings, "out.pt", learning_rate=1e30, warmup=0, clip=1e30)
    run = home / "runs" / "20260101-000000-hot"
    with pytest.raises(DivergedError):
        carry_out(hot, run)
    summary = read_summary(run)
    assert summary["reason"] == "failed" and "lower --lr" in summary["problem"] and not is_done(run)
    assert newest_run() is None


def test_no_states_can_be_kept_that_are_not_saved(tmp_path, settings):
    with pytest.raises(UsageError, match="--keep-states keeps checkpoints, and --save-every 0 saves none"):
        carry_out(replace(elsewhere(settings, "out.pt", save_every=0), keep_states=True), tmp_path / "run")


def test_the_final_weights_are_the_best_if_no_evaluation_was_better():
    assert ending.is_best(FINISHED)
    for change in ({"best_val_loss": 2.0, "best_val_step": 2}, {"final_val_step": 2}, {"final_val_loss": None}):
        finished = replace(FINISHED, **change)
        if change == {"final_val_loss": None}:
            finished = replace(finished, final_val_step=None)
        assert not ending.is_best(finished)
