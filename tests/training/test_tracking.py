"""Tracking with W&B's real client: what it writes offline, and that none of its failures reaches the run."""

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2cli.training import tracking
from gpt2cli.training.events import Answer, Evaluated, Sampled, Saved
from gpt2cli.training.json_process import JsonProcess
from gpt2cli.training.tracking import WandbTracker
from tests.runner import PATIENCE
from tests.training.records import FINISHED, started, step_event

BLOCK, HEADER = 32768, 7  # of the .wandb file: a leveldb log behind seven bytes of its own


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "offline")


def records(file: Path) -> Iterator[Any]:
    """The protocol buffers in a .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    content, at, whole = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # no room for a header: padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield Record.FromString(whole)
            whole = b""


def history(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of metrics that the client wrote, over all the times that the run was begun."""
    files = sorted(run_dir.glob("wandb/*run-*/*.wandb"), key=lambda file: file.stat().st_mtime)
    found = [
        record.history for file in files for record in records(file) if record.WhichOneof("record_type") == "history"
    ]
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item} for row in found]


def services(above: int) -> set[int]:
    """The processes of W&B's service below this one."""
    parents: dict[int, tuple[int, str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        parents[int(stat.parent.name)] = (int(rest.split()[1]), name)

    def is_below(pid: int) -> bool:
        return pid == above or (pid in parents and is_below(parents[pid][0]))

    return {pid for pid, (_, name) in parents.items() if is_below(pid) and "wandb-core" in name}


@pytest.mark.slow
def test_an_offline_run_holds_the_losses_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    notes: list[str] = []
    with WandbTracker("p", {"lr": 1e-4, "data": tmp_path}, tmp_path, note=notes.append) as tracker:
        for event in (started(0), step_event(1), Saved(1, tmp_path), step_event(2), Evaluated(2, 200, 2.5, True)):
            tracker.handle(event)
        tracker.handle(Sampled(2, [Answer("Say [it]", "so\nbe it", "so")]))
    with WandbTracker("p", {"lr": 1e-4}, tmp_path, note=notes.append) as resumed:
        resumed.handle(step_event(3))
        resumed.handle(FINISHED)
    assert notes == [] and resumed.run_id == tracker.run_id
    rows = history(tmp_path)
    assert [(row["_step"], row["loss"], row["lr"]) for row in rows] == [
        (1, 1.0, 1e-4),
        (2, 0.5, 1e-4),
        (3, 1 / 3, 1e-4),
    ]
    assert rows[1]["val_loss"] == 2.5 and {"grad_norm", "tok_s", "tokens", "epoch"} <= set(rows[0])
    (table,) = tmp_path.glob("wandb/*/files/media/table/*.json")
    assert json.loads(table.read_text())["data"] == [[2, "Say [it]", "so\nbe it", "so"]]
    assert {file.name for file in tmp_path.iterdir()} <= {"wandb", "wandb-config", "wandb-cache", "wandb-data"}


@pytest.mark.slow
def test_the_environment_says_that_it_is_offline_and_a_stored_id_is_used(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "run_id").write_text("mine")
    with WandbTracker("p", {}, tmp_path, note=pytest.fail) as tracker:
        tracker.handle(step_event(1))
    assert [file.name for file in tmp_path.glob("wandb/offline-run-*/*.wandb")] == ["run-mine.wandb"]


@pytest.mark.slow
def test_random_states_are_left_alone(tmp_path: Path) -> None:
    before = random.getstate(), torch.random.get_rng_state()
    with WandbTracker("p", {}, tmp_path) as tracker:
        tracker.handle(step_event(1))
    assert random.getstate() == before[0] and torch.equal(torch.random.get_rng_state(), before[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the service in /proc")
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGSTOP])
def test_a_service_that_dies_or_hangs_is_one_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadly: signal.Signals
) -> None:
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 2.0)
    notes: list[str] = []
    tracker = WandbTracker("p", {}, tmp_path, note=notes.append)
    tracker.handle(step_event(1))
    while not tracker._ready:
        tracker.handle(Saved(1, tmp_path))
        time.sleep(0.02)
    (service,) = services(os.getpid())
    os.kill(service, deadly)
    try:
        start = time.monotonic()
        for number in range(2, 200):
            tracker.handle(step_event(number))
        assert time.monotonic() - start < 1
        tracker.handle(FINISHED)
        tracker.close()
        assert time.monotonic() - start < 10
        tracker.handle(step_event(201))
        tracker.close()
    finally:
        os.kill(service, signal.SIGKILL)
    (note,) = notes
    assert note.startswith("wandb: ") and note.endswith("the run goes on without it") and "\n" not in note


FAKE_CLIENTS = {
    "absent": ("raise ImportError(\"No module named 'wandb'\")", "No module named"),
    "hanging at import": ("import time; time.sleep(60)", "no answer in"),
    "dying at import": ("import os; os._exit(9)", "its process ended"),
    "failing with a traceback": (
        "def init(*_, **__): raise RuntimeError('two\\nlines')\nSettings = dict",
        "two lines;",
    ),
    "noisy": ("print('x' * 100_000); import sys; sys.exit('boo')", "boo"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fake", FAKE_CLIENTS)
def test_a_client_that_fails_or_hangs_is_one_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fake: str
) -> None:
    code, expected = FAKE_CLIENTS[fake]
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "wandb.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "fake"))
    monkeypatch.setattr(tracking, "START_SECONDS", 1.0 if "hanging" in fake else 20.0)
    notes: list[str] = []
    with WandbTracker("p", {}, tmp_path, note=notes.append) as tracker:
        for number in range(1, 4):
            tracker.handle(step_event(number))
        tracker.handle(FINISHED)
    assert len(notes) == 1 and expected in notes[0]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_without_an_account_there_is_one_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    notes: list[str] = []
    with WandbTracker("p", {}, tmp_path, note=notes.append) as tracker:
        tracker.handle(step_event(1))
    assert len(notes) == 1 and "wandb login" in notes[0]


@pytest.mark.slow
def test_an_unwritable_directory_is_one_note(tmp_path: Path) -> None:
    (tmp_path / "wandb").write_text("a file in the way")
    notes: list[str] = []
    with WandbTracker("p", {}, tmp_path, note=notes.append) as tracker:
        tracker.handle(step_event(1))
    assert len(notes) == 1 and "wandb" in notes[0]


@pytest.mark.parametrize("kept", [b"", b"\xff\xfe", b"a b", b"../../x", b"x" * 1000])
def test_an_id_that_cannot_be_one_is_made_anew(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "run_id").write_bytes(kept)
    made = tracking.keep_id(tmp_path)
    assert len(made) == 8 and made.isalnum()
    assert tracking.keep_id(tmp_path) == made


@pytest.mark.parametrize("answer", ["7", "[1]", "null", "[" * 100_000, "\\xff", "NaN nonsense"])
def test_an_answer_that_is_none_is_a_failure(answer: str) -> None:
    process = JsonProcess(f"print({answer[:1]!r} * {len(answer)})" if len(set(answer)) == 1 else f"print({answer!r})")
    reply = process.reply(PATIENCE)
    process.stop(0)
    assert reply and set(reply) == {"failed"}


@pytest.mark.slow
def test_a_hung_client_keeps_no_process_alive_at_exit(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("import time; time.sleep(60)")
    code = (
        "import sys; from pathlib import Path; from gpt2cli.training.tracking import WandbTracker\n"
        "tracker = WandbTracker('p', {}, Path(sys.argv[1])); print(tracker._client._process.pid)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0 and ended.stderr == "" and time.monotonic() - start < 10
    os.kill(int(ended.stdout), signal.SIGKILL)  # it hangs as told
