"""Whether something can be written is known before the work."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from gpt2cli import atomic
from gpt2cli.errors import ResourceError, UsageError
from gpt2cli.outputs import check_checkpoint, check_directory, check_file


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    check_file(tmp_path / "out.pt")
    check_directory(tmp_path / "a" / "b")
    check_directory(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("place", ["/proc/out.pt", "/proc/self/task/out.pt"])
def test_a_file_system_that_takes_no_files(place: str) -> None:
    with pytest.raises(ResourceError, match="choose another place"):
        check_file(Path(place))
    with pytest.raises(ResourceError, match=f"cannot write {place}"):
        check_directory(Path(place))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_home_that_cannot_be_written_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2CLI_HOME", "/proc/x")
    with pytest.raises(ResourceError, match=r"cannot write /proc/x/runs/1: .*: set GPT2CLI_HOME to another place"):
        check_directory(Path("/proc/x/runs/1"))
    with pytest.raises(ResourceError, match="choose another place"):
        check_directory(Path("/proc/y"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no such permissions")
def test_a_directory_that_may_not_be_entered(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may enter every directory
    try:
        for path in (closed / "a.pt", closed / "b" / "a.pt"):
            for check in (check_file, check_directory, check_checkpoint):
                with pytest.raises(ResourceError, match="Permission denied: choose another place"):
                    check(path)
    finally:
        os.seteuid(user)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="make it first"):
        check_file(tmp_path / "no" / "out.pt")


def test_a_file_in_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for check in (check_file, check_directory):
        with pytest.raises(ResourceError):
            check(tmp_path / "file" / "out")


@pytest.mark.parametrize(("length", "fits"), [(255, True), (256, False), (300, False)])
def test_every_name_that_a_file_can_have_can_be_written(tmp_path: Path, length: int, fits: bool) -> None:
    target = tmp_path / ("x" * length)
    with nullcontext() if fits else pytest.raises(UsageError, match="too long for the name of a file"):
        check_file(target)
    if fits:
        atomic.write_text(target, "whole")
        assert target.read_text() == "whole"
