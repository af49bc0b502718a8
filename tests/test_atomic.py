"""Writing that loses nothing."""

import os

import pytest

from gpt2cli.atomic import replacing, replacing_directory, sweep


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


def test_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a.pt") as path:
            path.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.pt").stat().st_mode & 0o777 == 0o640


def tree(directory):
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


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


def test_the_old_directory_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "a").write_text("old")
    rename = type(target).rename

    def refuse(self, other):
        if self.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        return rename(self, other)

    monkeypatch.setattr(type(target), "rename", refuse)
    with pytest.raises(OSError, match="Input/output error"), replacing_directory(target) as path:
        (path / "a").write_text("new")
    assert tree(tmp_path) == {"folder/a": "old"}
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path):
    for name in ("a.pt", "notes.tmp", ".hidden"):
        (tmp_path / name).write_text("somebody's")
    before = tree(tmp_path)
    writing = replacing(tmp_path / "a.pt")
    writing.__enter__().write_text("half")  # and there it is killed
    assert tree(tmp_path) != before
    sweep(tmp_path)
    assert tree(tmp_path) == before
    sweep(tmp_path / "missing")
