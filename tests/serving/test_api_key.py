import os
from pathlib import Path

import pytest

from gpt2cli.errors import DataError, ResourceError
from gpt2cli.serving.api_key import LONGEST, exposed, read_api_key


def key_in(directory: Path, content: bytes) -> Path:
    file = directory / "key"
    file.write_bytes(content)
    return file


def test_without_a_key() -> None:
    assert read_api_key(None, {}) is None
    assert read_api_key(None, {"GPT2CLI_API_KEY": ""}) is None


def test_a_key_of_the_environment() -> None:
    assert read_api_key(None, {"GPT2CLI_API_KEY": " sk-1 "}) == "sk-1"


def test_a_file_has_precedence(tmp_path: Path) -> None:
    assert read_api_key(key_in(tmp_path, b"of-the-file"), {"GPT2CLI_API_KEY": "x"}) == "of-the-file"


@pytest.mark.parametrize(
    "content", [b"sk-1", b"sk-1\n", b"\n  sk-1 \r\n\n", b"\xef\xbb\xbfsk-1\r\n"], ids=["bare", "line", "blanks", "BOM"]
)
def test_what_is_around_a_key_does_not_count(tmp_path: Path, content: bytes) -> None:
    assert read_api_key(key_in(tmp_path, content), {}) == "sk-1"


@pytest.mark.parametrize(
    ("content", "message"),
    {
        b"": "holds no key",
        b" \n\t\n": "holds no key",
        b"sk-secret\nsk-secret\n": "holds several lines",
        b"sk secret": "has blanks or characters that are not ASCII",
        "sk-s\u00e9cret".encode(): "has blanks or characters that are not ASCII",
        b"sk-secret\xff": "has blanks or characters that are not ASCII",
        b"sk-secret\0": "has blanks or characters that are not ASCII",
        b"s" * (LONGEST + 1): "is too long for a key",
        b"s" * 10**6: "is too long for a key",
    }.items(),
)
def test_what_is_not_a_key(tmp_path: Path, content: bytes, message: str) -> None:
    file = key_in(tmp_path, content)
    with pytest.raises(DataError) as raised:
        read_api_key(file, {"GPT2CLI_API_KEY": "not-taken-instead"})
    assert message in str(raised.value) and str(file) in str(raised.value)
    assert "secret" not in str(raised.value) and "sss" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_key_of_the_environment_is_named() -> None:
    with pytest.raises(DataError, match="GPT2CLI_API_KEY holds no key"):
        read_api_key(None, {"GPT2CLI_API_KEY": " "})
    with pytest.raises(DataError, match="the key in GPT2CLI_API_KEY has blanks"):
        read_api_key(None, {"GPT2CLI_API_KEY": os.fsdecode(b"\xff")})


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="name a file as --api-key-file"):
        read_api_key(tmp_path / "nowhere", {})
    with pytest.raises((DataError, ResourceError), match="file as --api-key-file"):
        read_api_key(tmp_path, {})

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root can read files without permission
    with pytest.raises(ResourceError, match=r"Permission denied.*name another file as --api-key-file"):
        read_api_key(tmp_path, {})


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_file_that_others_can_read_is_told(tmp_path: Path) -> None:
    file = key_in(tmp_path, b"sk-1")
    for mode, is_exposed in ((0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o622, False)):
        file.chmod(mode)
        assert bool(exposed(file)) == is_exposed
    file.chmod(0o644)
    assert exposed(file) == f"other users of this machine can read the key in {file}: chmod 600 {file}"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")
def test_a_pipe_can_hold_the_key() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"sk-1\n")
    os.close(write_end)
    file = Path(f"/dev/fd/{read_end}")
    assert exposed(file) is None
    assert read_api_key(file, {}) == "sk-1"
    os.close(read_end)
