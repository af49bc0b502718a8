"""A crash at any moment leaves the old file or the new one."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpt2cli import atomic
from gpt2cli.atomic import recover, replacing, replacing_directory, sweep, write_text


def test_replacing_leaves_the_old_file_if_writing_fails(tmp_path):
    target = tmp_path / "a.pt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert [target.read_text(), list(tmp_path.iterdir())] == ["old", [target]]
    with replacing(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert [target.read_text(), list(tmp_path.iterdir())] == ["new", [target]]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "new")
        with replacing(tmp_path / "a.safetensors") as path:
            save_file({"a": torch.zeros(1)}, path)  # which makes files for their user alone
        with replacing_directory(tmp_path / "folder") as path:
            save_file({"a": torch.zeros(1)}, path / "a.safetensors")
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask


def test_the_umask_of_the_process_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads would see it"))
    write_text(tmp_path / "a.txt", "new")
    with replacing_directory(tmp_path / "folder") as path:
        (path / "a").write_text("new")


def tree(directory):
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(params=["exchanged in one step", "moved in two"])
def exchange(request, monkeypatch):
    if request.param != "exchanged in one step":
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("exchange")
def test_a_directory_comes_whole_or_not_at_all(tmp_path):
    target = tmp_path / "folder"
    for there in ({}, {"folder/a": "1", "folder/b": "1"}):
        with pytest.raises(KeyboardInterrupt), replacing_directory(target) as path:
            (path / "a").write_text("half")
            raise KeyboardInterrupt
        assert tree(tmp_path) == there
        with replacing_directory(target) as path:
            (path / "a").write_text("1")
            (path / "b").write_text("1")
            assert {name: text for name, text in tree(tmp_path).items() if name.startswith("folder")} == there
    with replacing_directory(target) as path:
        (path / "c").write_text("2")
    assert tree(tmp_path) == {"folder/c": "2"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="has no such call")
def test_this_system_exchanges_directories_in_one_step(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    assert atomic._exchange(tmp_path / "a", tmp_path / "b")
    assert tree(tmp_path) == {"a/which": "b", "b/which": "a"}


def test_the_old_directory_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "a").write_text("old")
    rename = type(target).rename

    def refuse(self, other):
        if self.name == atomic.NEW:
            raise OSError(5, "Input/output error")
        return rename(self, other)

    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    monkeypatch.setattr(type(target), "rename", refuse)
    with pytest.raises(OSError, match="Input/output error"), replacing_directory(target) as path:
        (path / "a").write_text("new")
    assert tree(tmp_path) == {"folder/a": "old"}
    assert list(tmp_path.iterdir()) == [target]


KILLED = """
import os, sys
from pathlib import Path
from gpt2cli import atomic
exchanges, last, target = sys.argv[1] == "True", int(sys.argv[2]), Path(sys.argv[3])
if not exchanges:
    atomic._exchange = lambda one, other: False
calls = 0
def counted(real):
    def call(*arguments, **options):
        global calls
        if calls == last:
            os._exit(137)
        calls += 1
        return real(*arguments, **options)
    return call
for name in ("rename", "replace", "fsync", "unlink", "rmdir", "chmod", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
if target.suffix:
    atomic.write_text(target, "new")
else:
    with atomic.replacing_directory(target) as directory:
        for name in "ab":
            (directory / name).write_text("new")
"""


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("name", ["folder", "file.txt"])
def test_killed_anywhere_the_old_or_the_new_is_there_and_nothing_else_in_the_end(tmp_path, name, exchanges):
    states = set()
    for last in range(40):
        directory = tmp_path / str(last)
        directory.mkdir()
        target = directory / name
        with replacing_directory(target) if not target.suffix else replacing(target.with_name("x")) as path:
            if not target.suffix:
                (path / "a").write_text("old")
            else:
                path.write_text("")
        if target.suffix:
            target.write_text("old")
            target.with_name("x").unlink()
        code = subprocess.run([sys.executable, "-c", KILLED, str(exchanges), str(last), str(target)]).returncode
        assert code in (0, 137)
        recover(target)
        assert list(directory.iterdir()) == [target]
        states.add(tuple(sorted(tree(directory).items())))
        if code == 0:
            break
    assert code == 0
    wholes = {f"{name}/a": "new", f"{name}/b": "new"}, {f"{name}/a": "old"}, {name: "new"}, {name: "old"}
    assert states == {tuple(sorted(whole.items())) for whole in wholes if (name in whole) == bool(target.suffix)}


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path):
    (tmp_path / ".a.pt.mine.tmp").mkdir()  # somebody's
    for name in ("a.pt", "notes.tmp", ".hidden"):
        (tmp_path / name).write_text("somebody's")
    (tmp_path / ".b.pt.12345678.tmp").mkdir()
    (tmp_path / ".a.pt.x.12345678.tmp").mkdir()
    before = tree(tmp_path)
    (tmp_path / ".a.pt.12345678.tmp").mkdir()
    (tmp_path / ".a.pt.12345678.tmp" / "a.pt").write_text("half")
    write_text(tmp_path / "a.pt", "somebody's")
    assert tree(tmp_path) == before  # the next writer of the same name
    assert len(list(tmp_path.glob(".*.tmp"))) == 3


def test_what_a_living_process_is_writing_stays(tmp_path):
    with replacing(tmp_path / "a.pt") as path:
        path.write_text("first")
        recover(tmp_path / "a.pt")
        with replacing(tmp_path / "a.pt") as other:
            other.write_text("second")
        assert path.read_text() == "first"
    assert tree(tmp_path) == {"a.pt": "first"}


def test_who_is_alone_sweeps_away_all_that_was_left_of_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "fcntl", None)  # it needs no locks
    others = [".b.pt.12345678.tmp", ".a.pt.x.12345678.tmp", ".a.pt.tmp", "a.pt.1.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / ".a.pt.12345671.tmp").write_text("of version 0.1")
    (tmp_path / ".a.pt.12345672.tmp").symlink_to("nowhere")
    (tmp_path / ".a.pt.12345673.tmp" / atomic.NEW).mkdir(parents=True)
    (tmp_path / ".a.pt.12345674.tmp" / atomic.OLD).mkdir(parents=True)
    sweep(tmp_path / "a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "a.pt"])  # the old one came back
    sweep(tmp_path / "missing" / "a.pt")


def test_where_locks_are_not_known_nothing_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "fcntl", None)
    (tmp_path / ".a.pt.12345678.tmp").mkdir()
    write_text(tmp_path / "a.pt", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.pt.12345678.tmp", "a.pt"]


def test_files_are_synced_through_a_handle_that_may_write(tmp_path, monkeypatch):
    """Windows refuses fsync for a file that is open for reading only."""
    import fcntl

    real, synced = os.fsync, []

    def as_on_windows(handle):
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(9, "Bad file descriptor")
            synced.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", as_on_windows)
    write_text(tmp_path / "a", "new")
    with replacing_directory(tmp_path / "folder") as path:
        (path / "a").write_text("new")
    assert len(synced) == 2


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "a\nb", "\udcff"], ids=range(4))
def test_names_of_any_kind(tmp_path, name):
    write_text(tmp_path / name, "new")
    assert tree(tmp_path) == {name: "new"}
    assert list(tmp_path.iterdir()) == [tmp_path / Path(name)]


def test_an_error_of_the_file_system_names_the_target(tmp_path):
    nowhere = tmp_path / "nowhere" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught:
        write_text(nowhere, "x")
    assert caught.value.filename == str(nowhere)
    target, other = tmp_path / "a.txt", OSError(5, "Input/output error", "b.txt")
    for write in (replacing, replacing_directory):
        for error, named in ((OSError(28, "No space left on device"), str(target)), (other, "b.txt")):
            with pytest.raises(OSError) as caught, write(target):
                raise error
            assert caught.value.filename == named
    with pytest.raises(BrokenPipeError) as closed, replacing(target):
        raise BrokenPipeError(32, "Broken pipe")  # of a stream, and not of a file
    assert closed.value.filename is None
