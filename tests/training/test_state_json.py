"""`state.json`: a changed or damaged file is never accepted."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from gpt2cli.errors import CheckpointError
from gpt2cli.training import run_checkpoints
from gpt2cli.training.events import SMOOTHED, Saved
from gpt2cli.training.state_json import Counters, FileInfo, StateFile, read_state_file
from tests.training.records import dataset, events_of, job

COUNTERS = Counters(4, 900, 1.25, [(3.5, 7), (2.5, 9)], 2.0, 4, 1.5, 2, 1)
WRITTEN = StateFile({"a": FileInfo(10, 123)}, COUNTERS, {"seed": 3, "lr": 1e-4, "lora_rank": None, "data": "abc"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "state.json"
    path.write_text(WRITTEN.as_text())
    return path


def changed(file: Path, place: str, value: object, checksum: bool) -> None:
    """Put a value at a place such as counters.step, and take the checksum away or leave it as it was."""
    content = json.loads(file.read_text())
    *tables, name = place.split(".")
    table = content
    for each in tables:
        table = table[each]
    table[name] = value
    if not checksum:
        del content["crc32"]
    file.write_text(json.dumps(content))


def test_it_is_read_as_it_was_written(file):
    assert read_state_file(file) == WRITTEN
    file.write_text(json.dumps(json.loads(file.read_text())))  # other blanks mean the same
    assert read_state_file(file) == WRITTEN


def test_every_flipped_bit_is_an_error_or_means_the_same(file):
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with suppress(ValueError):
            assert read_state_file(file) == WRITTEN


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("counters.step", 3),
        ("counters.tokens_seen", 901),
        ("counters.recent", []),
        ("counters.best_val_loss", None),
        ("identity.seed", 4),
        ("identity", {}),
        ("files.a.crc32", 124),
        ("files", {}),
    ],
)
def test_a_value_of_the_right_type_is_told_by_the_checksum(file, place, value):
    changed(file, place, value, checksum=True)
    with pytest.raises(ValueError, match="was changed after it was written"):
        read_state_file(file)


WRONG = [
    *(("counters.step", value) for value in ("x", -5, True, None, 4.0, 2**63, [], {})),
    *(("counters.tokens_seen", value) for value in ("x", -1, False, None, 1.5)),
    *(("counters.train_seconds", value) for value in (None, -1.0, "x", True, float("nan"), float("inf"), 10**400)),
    *(("counters.recent", value) for value in (None, [7], [[1.0]], [[1.0, 2.0]], [["x", 2]])),
    ("counters.recent", [[1.0, 2]] * (SMOOTHED + 1)),
    *(("counters.val_loss", value) for value in ("x", float("nan"), [], True)),
    *(("counters.best_val_loss", value) for value in ("x", float("-inf"), {})),
    *(("counters.val_step", value) for value in ("x", -1, 1.0)),
    *(("counters.best_val_step", value) for value in ("x", -1, True)),
    *(("counters.worse_evaluations", value) for value in ("x", -1, None)),
    ("counters.more", 1),
    *(("counters", value) for value in (None, [], "x", 3)),
    *(("identity", value) for value in (None, [1], "x")),
    *(("identity.seed", value) for value in ([1], {"a": 1})),
    ("identity.\x1b[31m", 1),
    *(("files", value) for value in (None, [], {"a": None}, {"a": {"size": 1}})),
    *(("files.a.size", value) for value in (-1, "x", None, 1e3)),
    ("more", 1),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), WRONG, ids=str)
@pytest.mark.parametrize("checksum", [True, False])
def test_a_value_of_a_wrong_type_is_an_error(file, place, value, checksum):
    changed(file, place, value, checksum)
    with pytest.raises(ValueError) as raised:
        read_state_file(file)
    assert len(str(raised.value)) < 250 and str(raised.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"{}"])
def test_no_state_at_all_is_an_error(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError):
        read_state_file(file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "state.json")
    (tmp_path / "directory").mkdir()
    for name in ("state.json", "directory", "missing"):
        with pytest.raises(ValueError, match=name):
            read_state_file(tmp_path / name)


def test_a_file_from_before_there_was_a_checksum_is_read(file):
    content = json.loads(file.read_text())
    del content["crc32"]
    file.write_text(json.dumps(content))
    assert read_state_file(file) == WRITTEN


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of steps 5 and 6."""
    directory = tmp_path_factory.mktemp("checkpoints")
    assert (
        events_of(job(save_every=1, keep_states=True, checkpoints=directory, val=dataset(5, seed=1)), Saved)[-1].step
        == 6
    )
    return directory


@pytest.fixture
def newest(trained):
    path = trained / "step-00000006" / "state.json"
    whole = path.read_text()
    yield path
    path.write_text(whole)


@pytest.mark.parametrize("step", [5, 7, 0, 10**9])
def test_a_step_that_is_not_the_directorys_own_is_passed_over(newest, trained, step):
    changed(newest, "counters.step", step, checksum=False)
    error, found = run_checkpoints.read_newest(trained)
    assert isinstance(error, CheckpointError)
    assert "step-00000006 is damaged" in str(error)
    assert found.counters.step == 5


@pytest.mark.parametrize("name", ["../../../x", run_checkpoints.STATE, "", "/etc/passwd"])
def test_files_elsewhere_are_not_looked_at(newest, trained, name):
    content = json.loads(newest.read_text())
    changed(newest, "files", content["files"] | {name: {"size": 1, "crc32": 1}}, checksum=False)
    error, found = run_checkpoints.read_newest(trained)
    assert "does not list weights.safetensors and optimizer.safetensors" in str(error)
    assert found.counters.step == 5


def test_only_directories_named_as_checkpoints_count(tmp_path, trained):
    for name in (
        "step-x",
        "step-",
        "step-1",
        "step-00000001-old",
        ".step-00000009.tmp",
        "step-00000003",
        "step-100000001",
    ):
        (tmp_path / name).mkdir()
    assert [path.name for path in run_checkpoints.checkpoints(tmp_path)] == ["step-100000001", "step-00000003"]
