"""The beginning of a run: what is refused before any work, and what is left to do."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from gpt2cli.config import DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.progress import Note
from gpt2cli.training.begin import RunOptions, begin
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.engine import train
from gpt2cli.training.events import Finished
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.settings import Settings
from gpt2cli.training.settings_checks import check_out
from tests.training.records import settings_from

TINY_SHAPE = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A run of two steps on plain text."""
    (tmp_path / "tale.txt").write_text("Once there was a fox who liked the rain. " * 20)
    return Settings(
        model=None,
        ckpt=None,
        data=str(tmp_path / "tale.txt"),
        train=TrainConfig(max_steps=2, sample_every=0),
        records=DataConfig(test_fraction=0),
        from_scratch=TINY_SHAPE,
        out=str(tmp_path / "out.pt"),
    )


def test_a_run_begins_resumes_and_is_done_from_python(tmp_path, settings, home):
    notes: list[str] = []

    def progress(event):
        notes.append(event.text if isinstance(event, Note) else event)

    def go_on(stop=False, **options) -> Finished | None:
        with begin(settings, RunOptions(device="cpu", **options), Ranks(), progress) as run:
            if run is None:
                return None
            run.job.should_stop = lambda: stop
            for event in train(run.job):
                run.directory.handle(event)
            if event.reason != "interrupted":
                run.write_weights(event)
            return event

    first = go_on(stop=True)
    assert first.reason == "interrupted" and first.steps == 1
    second = go_on(resume=True)
    assert second.reason == "done" and second.steps == 2
    assert Path(settings.out).is_file()
    assert go_on(resume=True) is None
    assert notes == [f"nothing to do: no run in {home / 'runs'} is unfinished"]


def test_a_directory_is_locked_as_long_as_the_run_lasts(tmp_path, settings):
    with begin(settings, RunOptions(path=tmp_path / "run", device="cpu"), Ranks(), print) as run:
        assert run.job.resume is None
        with pytest.raises(ResourceError, match="is locked by"):
            RunDirectory(run.path)
    RunDirectory(tmp_path / "run").close()
    with (
        pytest.raises(UsageError, match="holds a run already: add --resume"),
        begin(settings, RunOptions(path=tmp_path / "run", device="cpu"), Ranks(), print),
    ):
        pass


def test_processes_other_than_the_first_write_nothing(tmp_path, settings):
    options = RunOptions(path=tmp_path / "run", device="cpu")
    with begin(settings, options, Ranks(rank=1, world_size=2), print) as run:
        assert run.directory is None
        assert run.job.identity["world_size"] == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["tiny", "mine"])
def test_weights_may_not_go_into_the_base_of_an_adapter(tmp_path: Path, monkeypatch, model: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / model).mkdir()  # the name of a published model does not mean a directory
    out = str(tmp_path / model / "out.pt")
    settings = settings_from(model, lora=LoRAConfig(), out=out)
    with nullcontext() if model == "tiny" else pytest.raises(UsageError, match="belongs to the model"):
        check_out(settings, tmp_path / "run")


def test_a_dry_run_expects_the_directory_that_the_run_makes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    check_out(settings_from("tiny", out=str(run / "out.pt")), run)
    with pytest.raises(UsageError, match="the run keeps other weights"):
        check_out(settings_from("tiny", out=str(run / "best.pt")), run)
    with pytest.raises(ResourceError, match="there is no directory"):
        check_out(settings_from("tiny", out=str(tmp_path / "other" / "out.pt")), run)
