"""Compiled code is read only from undamaged files that only the user can have written. Otherwise, it is recompiled."""

import errno
import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from gpt2cli.inference.cpu import compiled_store
from gpt2cli.inference.cpu.compiled_store import Store

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX user ids and permission bits")


@pytest.fixture
def kept(tmp_path):
    """A store with one file."""
    store = Store(tmp_path / "cache")
    store.write("loop", b"machine code")
    assert store.problem is None
    return store


def test_a_written_file_is_read_by_another_process_and_can_be_replaced(kept, tmp_path):
    assert Store(tmp_path / "cache").read("loop") == b"machine code"
    kept.write("loop", b"")
    assert kept.read("loop") == b""
    assert kept.read("other") is None


@posix
def test_files_and_directories_are_private(kept):
    previous = os.umask(0)
    try:
        kept.write("open", b"x")
    finally:
        os.umask(previous)
    for path in (kept.directory.parent, kept.directory, kept.directory / "loop", kept.directory / "open"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def change(index):
    def damage(file):
        content = bytearray(file.read_bytes())
        content[index] ^= 1
        file.write_bytes(content)

    return damage


def into(replacement):
    def damage(file):
        file.unlink()
        replacement(file)

    return damage


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: os.truncate(file, 0),
    "cut": lambda file: os.truncate(file, 35),
    "cut within the digest": lambda file: os.truncate(file, 10),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "a bit of the digest": change(0),
    "a bit of the content": change(-1),
    "zeros": lambda file: file.write_bytes(bytes(44)),
}
if os.name == "posix":
    DAMAGES |= {"a FIFO": into(os.mkfifo), "a link": into(lambda file: file.symlink_to("/dev/zero"))}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_counts_as_missing_and_is_replaced(kept, damage):
    damage(kept.directory / "loop")
    assert kept.read("loop") is None
    kept.write("loop", b"anew")
    assert kept.problem is None
    assert kept.read("loop") == b"anew"


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o720])
def test_a_directory_that_others_can_write_to_is_not_read(kept, tmp_path, mode):
    kept.directory.chmod(mode)
    assert kept.read("loop") is None
    store = Store(tmp_path / "cache")
    assert "you alone" in store.problem
    store.write("new", b"x")
    assert [path.name for path in kept.directory.iterdir()] == ["loop"]


@posix
def test_a_file_that_others_can_write_to_is_not_read(kept):
    (kept.directory / "loop").chmod(0o602)
    assert kept.read("loop") is None


@posix
def test_a_directory_of_another_user_is_not_read(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert kept.read("loop") is None
    assert Store(tmp_path / "cache").problem


@posix
def test_a_file_of_another_user_is_not_read(kept, monkeypatch):
    own = os.fstat

    def of_another_user(handle):
        values = list(own(handle))
        values[4] += 1
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", of_another_user)
    assert kept.read("loop") is None


@posix
def test_a_link_to_another_directory_is_not_followed(kept, tmp_path):
    kept.directory.rename(tmp_path / "elsewhere")
    kept.directory.symlink_to(tmp_path / "elsewhere")
    assert kept.read("loop") is None
    assert Store(tmp_path / "cache").problem


@posix
def test_a_cache_directory_may_be_a_link(kept, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    assert Store(tmp_path / "link").read("loop") == b"machine code"


@posix
def test_root_leaves_nothing_in_another_users_home(tmp_path, monkeypatch):
    """As with `sudo -E`: the home directory is another user's, and root may write to it."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    store = Store(tmp_path / "cache" / "gpt2cli")
    assert "belongs to another user" in store.problem
    store.write("loop", b"x")
    assert store.read("loop") is None
    assert not list(tmp_path.iterdir())


@posix
def test_a_directory_of_the_users_group_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    tmp_path.chmod(0o770)
    assert "belongs to another user" not in (Store(tmp_path / "gpt2cli").problem or "")
    assert (tmp_path / "gpt2cli").exists()
    monkeypatch.setattr(os, "getegid", lambda: -1)
    monkeypatch.setattr(os, "getgroups", list)
    assert "belongs to another user" in Store(tmp_path / "other").problem


def test_without_room_nothing_is_written_and_the_problem_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    store = Store(tmp_path)
    assert "no room" in store.problem
    store.write("loop", b"x")
    assert not list(store.directory.iterdir())


@pytest.mark.parametrize("step", ["write", "rename"])
def test_after_the_disk_is_full_nothing_is_written(kept, monkeypatch, step):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(Path, "replace", full)
        else:
            patch.setattr(compiled_store.hashlib, "sha256", full)
        kept.write("next", b"x")
    assert "No space left on device" in kept.problem
    kept.write("one more", b"x")
    assert [path.name for path in kept.directory.iterdir()] == ["loop"]
    assert kept.read("loop") == b"machine code"


@pytest.mark.parametrize("base", ["file", "file/below", "nul\0", "x" * 300])
def test_a_directory_that_cannot_be_made_is_a_problem_and_no_error(tmp_path, base):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / base)
    assert store.problem
    assert store.read("loop") is None


def test_without_a_home_nothing_is_stored():
    store = Store(None)
    store.write("loop", b"x")
    store.delete("loop")
    store.sweep()
    assert store.read("loop") is None
    assert store.problem == "there is no home directory"


def test_old_temporary_files_are_deleted_but_not_new_ones(kept):
    old, new = kept.directory / "0.tmp", kept.directory / "1.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * compiled_store.STALE,) * 2)
    kept.sweep()
    assert not old.exists()
    assert new.exists()
    assert kept.read("loop")


def test_code_that_is_no_longer_used_is_deleted(kept):
    kept.write("unused", b"x")
    for path in kept.directory.iterdir():
        os.utime(path, (time.time() - 2 * compiled_store.UNUSED,) * 2)
    assert kept.read("loop")
    kept.sweep()
    assert [path.name for path in kept.directory.iterdir()] == ["loop"]


def test_deleting_a_missing_file_is_no_error(kept):
    kept.delete("loop")
    kept.delete("loop")
    assert kept.read("loop") is None
