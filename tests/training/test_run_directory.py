"""The directory of a run: the content of its files, before and after a resume, and the lock."""

import json
import math
import os
import resource
import signal
import sys
import tracemalloc
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2cli import atomic, paths
from gpt2cli.errors import CheckpointError, ResourceError, UsageError
from gpt2cli.training import run_directory
from gpt2cli.training.events import Answer, Evaluated, Event, Sampled, Saved
from gpt2cli.training.run_directory import RunDirectory
from gpt2cli.training.runs import all_runs, is_done, new_run_path, newest_run, read_config, read_summary
from tests.training.records import FINISHED, started, step_event


def events(first: int, last: int) -> list[Event]:
    """The events after step `first`, up to step `last`, with an evaluation and answers at each second step."""
    told: list[Event] = [started(first)]
    for step in range(first + 1, last + 1):
        told.append(step_event(step))
        if step % 2 == 0:
            told += [Evaluated(step, 100 * step, 2.5, True), Sampled(step, [Answer("Say it", f"at step {step}", None)])]
    return told


def write(path: Path, told: list[Event]) -> None:
    with RunDirectory(path) as run:
        for event in told:
            run.handle(event)


def test_each_step_and_evaluation_is_a_line(tmp_path: Path) -> None:
    write(tmp_path, [*events(0, 2), Saved(2, tmp_path)])
    first, _, evaluated = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first == {
        **{"kind": "step", "step": 1, "epoch": 0.25, "loss": 1.0, "smoothed_loss": 2.0, "lr": 1e-4},
        **{"grad_norm": 1.5, "tokens": 100, "targets": 40, "tok_s": 333.3},
    }
    assert evaluated == {"kind": "eval", "step": 2, "tokens_seen": 200, "val_loss": 2.5}


def test_a_line_is_in_the_file_as_soon_as_it_is_told(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.handle(events(0, 1)[1])
        assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")


def test_config_summary_and_plot(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "a" / "run") as run:
        run.write_config({"lr": 1e-4, "data": Path("x.json")})
        assert read_config(run.path) == {"lr": 1e-4, "data": "x.json"}
        assert run.checkpoints == run.path / "checkpoints"
        for event in [*events(0, 4), FINISHED]:
            run.handle(event)
        summary = json.loads((run.path / "summary.json").read_text())
        assert summary["steps"] == 4 and summary["best_val_loss"] == 2.5 and summary["reason"] == "done"
        assert (run.path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_names_of_files_that_are_no_unicode_come_back(tmp_path: Path) -> None:
    settings = {"data": os.fsdecode(b"r\xff.json"), "out": "caf\u00e9.pt"}
    with RunDirectory(tmp_path) as run:
        run.write_config(settings)
    assert read_config(tmp_path) == settings


@pytest.mark.parametrize("content", [None, "[1]", '{"a":', "[" * 100_000, "\x00", "1" * 5000])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    with RunDirectory(tmp_path) as run:
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            read_config(run.path)


@pytest.mark.parametrize("checkpoint", [0, 1, 2, 3, 4])
def test_resumed_files_read_as_those_of_an_unbroken_run(tmp_path: Path, checkpoint: int) -> None:
    write(tmp_path / "unbroken", events(0, 4))
    write(tmp_path / "killed", events(0, 4))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # torn by kill -9
    write(tmp_path / "killed", events(checkpoint, 4))
    for name in ("metrics.jsonl", "samples.md"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


DAMAGED = (
    b'{"kind": "step", "step": "x", "loss": 1.0}\n',
    b'{"kind": "step", "step": 1, "loss": NaN, "smoothed_loss": 1.0, "tokens": 1}\n',
    b'{"kind": "step", "step": 1, "loss": null, "smoothed_loss": 1.0, "tokens": 1}\n',
    b'{"kind": "step", "step": 1}\n',
    b'{"kind": "step", "step": true, "loss": 1.0, "smoothed_loss": 1.0, "tokens": 1}\n',
    b'{"kind": "eval", "step": 1, "val_loss": Infinity}\n',
    b'{"kind": ["eval"], "step": 1}\n',
    b'{"step": 1}\n',
    b"[1]\n",
    b"null\n",
    b"7\n",
    b"\n",
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b'{"step": ' + b"1" * 5000 + b"}\n",
)


@pytest.mark.parametrize("damaged", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_of_metrics_goes_and_the_others_stay(tmp_path: Path, damaged: bytes) -> None:
    write(tmp_path, events(0, 4))
    metrics = tmp_path / "metrics.jsonl"
    whole = metrics.read_bytes()
    lines = whole.splitlines(keepends=True)
    metrics.write_bytes(b"".join([lines[0], damaged, *lines[1:]]))
    write(tmp_path, [started(4)])
    assert metrics.read_bytes() == whole


@pytest.mark.slow
def test_huge_files_take_no_memory_when_a_run_goes_on(tmp_path: Path) -> None:
    write(tmp_path, events(0, 4))
    files = [tmp_path / "metrics.jsonl", tmp_path / "samples.md"]
    whole = [file.read_bytes() for file in files]
    for file in files:
        with file.open("r+b") as opened:
            opened.truncate(2**26)  # zeros, which take no space on the disk
    tracemalloc.start()
    write(tmp_path, [started(4)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23
    assert [file.read_bytes() for file in files] == whole


def test_metrics_are_json_whatever_the_numbers_are(tmp_path: Path) -> None:
    write(tmp_path, [replace(step_event(1), loss=math.nan, smoothed_loss=math.inf, grad_norm=-math.inf)])

    def refuse(name: str) -> None:
        raise AssertionError(name)

    fields = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (fields["loss"], fields["smoothed_loss"], fields["grad_norm"]) == (None, None, None)


def killed_while_writing(file: Path) -> None:
    """End a process within `atomic.replacing`, without any cleanup, as kill -9 does."""
    child = os.fork()
    if child == 0:
        with atomic.replacing(file) as temporary:
            temporary.write_text("half")
            os._exit(9)
    os.waitpid(child, 0)


def test_what_killed_runs_left_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        before = {path.name for path in tmp_path.iterdir()}
        for name in run_directory.WRITTEN:
            killed_while_writing(tmp_path / name)
        (tmp_path / ".config.json.abcdefg_.tmp").touch()  # of version 0.1
        left = run.checkpoints / ".step-00000007.tmp"
        left.mkdir(parents=True)
        (left / "weights.safetensors").touch()
        others = {".hf.abc.tmp", ".mine.tmp"}  # somebody may be writing there
        (tmp_path / ".mine.tmp").touch()
        (tmp_path / ".hf.abc.tmp").mkdir()
        assert len(list(tmp_path.glob(".*.tmp"))) == len(run_directory.WRITTEN) + 3
        run.handle(started(3))
        assert {path.name for path in tmp_path.iterdir()} == before | others | {"checkpoints"}
        assert not list(run.checkpoints.iterdir())


def test_a_directory_without_a_run_goes_where_open_files_cannot_be_deleted(tmp_path, monkeypatch) -> None:
    """As on Windows, where the lock's file is held open until the lock is released."""
    run, unlink = RunDirectory(tmp_path / "run"), Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == ".lock":
            raise PermissionError(13, "The process cannot access the file", str(path))
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        run.close()
    RunDirectory(tmp_path / "run").close()  # it was released
    assert not (tmp_path / "run").exists()


def test_an_evaluation_before_the_first_step_is_not_kept_twice(tmp_path: Path) -> None:
    write(tmp_path, [started(0), Evaluated(0, 0, 4.0, True)])
    write(tmp_path, [started(0), Evaluated(0, 0, 4.0, True)])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_answers_cannot_break_out_of_their_block(tmp_path: Path) -> None:
    nasty = "```\n## Step 9\n<b>\r# head\x85\x1b[31m\u2028## Step 8\n\n~~~\n"
    write(tmp_path, [Sampled(1, [Answer(nasty, nasty, nasty), Answer("", "", None)])])
    lines = (tmp_path / "samples.md").read_text(encoding="utf-8").splitlines()
    ours = [line for line in lines if line and not line.startswith("    ")]
    assert ours == ["## Step 1", "Prompt:", "Answer:", "Expected:", "Prompt:", "Answer:"]
    assert r"    \x1b[31m" in lines
    write(tmp_path, [started(1)])
    assert (tmp_path / "samples.md").read_text(encoding="utf-8").splitlines() == lines


def test_a_second_run_is_refused_by_pid_and_kill_9_lets_go(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    other = os.fork()
    if other == 0:
        try:
            with RunDirectory(tmp_path):
                os.write(writer, b"x")
                signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reader, 1) == b"x"
        for _ in range(2):  # a refused one leaves the pid where it is
            with pytest.raises(ResourceError, match=f"locked by pid {other}:") as refusal:
                RunDirectory(tmp_path)
        assert refusal.value.exit_code == 6
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        os.close(reader)
        os.close(writer)
    with RunDirectory(tmp_path), pytest.raises(ResourceError, match=f"pid {os.getpid()}"):
        RunDirectory(tmp_path)
    RunDirectory(tmp_path).close()


@pytest.mark.parametrize("content", [b"", b"x" * 10_000, b"\xff\xfe", b"1\x1b[31m", None])
def test_the_pid_of_whoever_holds_the_lock_need_not_be_readable(tmp_path: Path, content: bytes | None) -> None:
    with RunDirectory(tmp_path):
        (tmp_path / ".pid").unlink()
        if content is not None:
            (tmp_path / ".pid").write_bytes(content)
        with pytest.raises(ResourceError) as raised:
            RunDirectory(tmp_path)
        assert str(raised.value).endswith(
            "is locked by another run: wait for that run to end, or choose another --run-dir"
        )


def test_what_cannot_be_a_directory_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").touch()
    with pytest.raises(UsageError, match="is a file"):
        RunDirectory(tmp_path / "file")
    with pytest.raises(UsageError, match="too long"):
        RunDirectory(tmp_path / ("x" * 300))
    for path in (tmp_path / "run", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(ResourceError, match=f"cannot write {path}"):
            RunDirectory(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with a name")
@pytest.mark.parametrize("name", [".pid", "config.json", "summary.json", "metrics.jsonl", "samples.md"])
@pytest.mark.parametrize("kind", ["pipe", "directory", "link to nothing", "device"])
def test_what_stands_in_the_way_of_a_file_is_replaced_or_refused_before_the_work(tmp_path, name, kind) -> None:
    file = tmp_path / name
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "directory":
            file.mkdir()
        case "device":
            file.symlink_to("/dev/zero")
        case _:
            file.symlink_to(tmp_path / "nowhere" / "nothing")
    refused = kind == "directory" or name in run_directory.APPENDED
    with pytest.raises(ResourceError, match=name) if refused else nullcontext(), RunDirectory(tmp_path) as run:
        run.write_config({})
        for event in [*events(0, 2), FINISHED]:
            run.handle(event)


def test_a_disk_that_is_full_at_once_leaves_no_directory(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        with pytest.raises(ResourceError, match=r"cannot write .*\.pid"):
            RunDirectory(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert not list(tmp_path.iterdir())


def test_settings_and_summaries_that_are_huge_are_not_read(tmp_path: Path) -> None:
    for name in ("config.json", "summary.json"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(CheckpointError, match="more than 16 MB"):
        read_config(tmp_path)
    assert not is_done(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode")
def test_a_name_that_no_checkpoint_can_be_read_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not UTF-8"):
        RunDirectory(tmp_path / "\udcff")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        for name in ("metrics.jsonl", "summary.json", "config.json"):
            (tmp_path / name).mkdir()
        for name, work in (
            ("metrics.jsonl", lambda: run.handle(events(0, 1)[1])),
            ("summary.json", lambda: run.handle(FINISHED)),
            ("config.json", lambda: run.write_config({})),
        ):
            with pytest.raises(ResourceError, match=f"cannot write {tmp_path / name}"):
                work()


def test_a_run_is_done_when_its_weights_are_written(tmp_path: Path) -> None:
    out, summary = tmp_path / "out.pt", tmp_path / "summary.json"
    with RunDirectory(tmp_path) as run:
        for event in [*events(0, 4), FINISHED]:
            run.handle(event)
        assert not is_done(tmp_path)
        out.touch()
        run.write_out(out)
        assert is_done(tmp_path) and read_summary(tmp_path)["out"] == str(out)
        assert read_summary(tmp_path)["best_weights"] is None
        run.write_out(out, tmp_path / "best.pt")
        assert read_summary(tmp_path)["best_weights"] == str(tmp_path / "best.pt")
        run.write_out(out)
    before = summary.read_bytes(), summary.stat().st_mtime_ns
    with RunDirectory(tmp_path) as run:  # no step is left
        run.handle(started(4))
        run.handle(FINISHED)
        run.write_out(out)
    assert (summary.read_bytes(), summary.stat().st_mtime_ns) == before
    fields = json.loads(summary.read_text())
    del fields["out"]  # as version 0.1 has it
    summary.write_text(json.dumps(fields))
    assert is_done(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"reason": 7}', "[" * 100_000, '{"reason": "interrupted"}'])
def test_a_summary_that_cannot_be_read_is_no_end(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    assert not is_done(tmp_path)


def test_a_plot_that_fails_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "SECONDS_BETWEEN_PLOTS", 0.0)
    monkeypatch.setattr(run_directory, "plot_losses", lambda metrics, out: "no loss.png: because")
    notes: list[str] = []
    with RunDirectory(tmp_path, notes.append) as run:
        for event in [*events(0, 4), FINISHED]:
            run.handle(event)
    assert notes == ["no loss.png: because"] and (tmp_path / "summary.json").exists()


def test_new_runs_have_names_of_their_own_and_the_newest_is_found(home: Path) -> None:
    assert newest_run() is None
    first = new_run_path("my data/../set")
    assert first.parent == paths.runs() == home / "runs" and first.name.endswith("-my-data-..-set")
    for _ in range(2):
        with RunDirectory(new_run_path("my data/../set")) as run:
            run.write_config({})
    assert len(list(paths.runs().iterdir())) == 2
    (paths.runs() / "99990101-000000-not-begun").mkdir()
    newest = newest_run()
    assert newest == max(path.parent for path in paths.runs().glob("*/config.json"))
    for path in paths.runs().glob("*/config.json"):
        assert newest_run() is not None
        (path.parent / "summary.json").write_text('{"reason": "done"}')
    assert newest_run() is None and len(all_runs()) == 2
