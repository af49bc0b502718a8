"""The directories of gpt2cli, and the errors if they cannot be used."""

from pathlib import Path

import platformdirs
import pytest

from gpt2cli import paths
from gpt2cli.errors import ResourceError, UsageError


@pytest.fixture
def homeless(monkeypatch):
    """No HOME, and a user id without an account."""

    def unknown(*args, **options):
        raise RuntimeError("could not determine the home directory for '~/.local/share'")

    monkeypatch.setattr(platformdirs, "user_data_dir", unknown)
    monkeypatch.delenv("GPT2CLI_HOME", raising=False)


def test_without_a_home_the_error_names_the_variable(homeless):
    with pytest.raises(ResourceError, match="there is no home directory: set GPT2CLI_HOME"):
        paths.models()


def test_without_a_home_the_variable_is_enough(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("GPT2CLI_HOME", str(tmp_path))
    assert paths.datasets() == tmp_path / "datasets"


def test_a_home_of_nobody_is_refused(monkeypatch):
    monkeypatch.setenv("GPT2CLI_HOME", "~nobody-has-this-name/x")
    with pytest.raises(UsageError, match="there is no such home directory"):
        paths.home()


def test_a_directory_is_made_with_those_above_it(tmp_path):
    paths.make(tmp_path / "a" / "b")
    paths.make(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_home_that_cannot_be_made_is_named_by_its_variable(monkeypatch):
    monkeypatch.setenv("GPT2CLI_HOME", "/proc/x")
    with pytest.raises(ResourceError, match=r"cannot make /proc/x/models \(.*\): set GPT2CLI_HOME"):
        paths.make(paths.models())


def test_another_directory_that_cannot_be_made_is_not(monkeypatch, tmp_path):
    monkeypatch.setenv("GPT2CLI_HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"cannot make .*: choose another place"):
        paths.make(tmp_path / "file" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_blank_variable_is_as_none(monkeypatch):
    monkeypatch.delenv("GPT2CLI_HOME", raising=False)
    usual = paths.home()
    monkeypatch.setenv("GPT2CLI_HOME", " ")
    assert paths.home() == usual


def test_a_file_whose_name_begins_with_a_tilde_is_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert paths.expand("./~nobody-has-this-name") == Path("~nobody-has-this-name")
    (tmp_path / "~$report.txt").write_text("")
    assert paths.expand("~$report.txt") == Path("~$report.txt")
    assert paths.expand("~/x") == Path.home() / "x"
