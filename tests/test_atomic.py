"""Writing that loses nothing."""

import os

import pytest

from gpt2cli.atomic import replacing


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
