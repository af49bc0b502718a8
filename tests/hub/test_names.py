"""Names of models, as people type them."""

import pytest

from gpt2cli.errors import UsageError
from gpt2cli.hub import names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", ("openai-community/gpt2", "main")),
        ("distilgpt2", ("distilbert/distilgpt2", "main")),
        ("gpt2@v1.0", ("openai-community/gpt2", "v1.0")),
        ("some-one/my_model.v2", ("some-one/my_model.v2", "main")),
        ("owner/name@refs/pr/1", ("owner/name", "refs/pr/1")),
    ],
)
def test_names(name: str, expected: tuple[str, str]) -> None:
    assert names.parse_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("", "x", "../../x", "../x", "a/b/c", "/etc", "a/..", "a\\b", "a/b@", "a/b@../c", "a/b@-x", "ünï/code"),
        *("a/b\n", "a/b\x1b[31m", "a/b@x\x9b", "a/b@x y", "a--b/c", "a/" + "b" * 200),
    ],
)
def test_what_is_no_name_is_refused_and_shown_escaped(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        names.parse_name(name)
    assert str(caught.value).startswith(repr(name[:200]))
    assert str(caught.value).isprintable()
    assert "gpt2-medium" in str(caught.value)


def test_the_bundled_model_needs_no_download() -> None:
    with pytest.raises(UsageError, match="comes with gpt2cli"):
        names.parse_name("tiny")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:owner/name/a.jsonl", ("owner/name", "main", "a.jsonl")),
        (
            "hf:some-one/my_data.v2@v1.0/c d/train-0-of-1.json.gz",
            ("some-one/my_data.v2", "v1.0", "c d/train-0-of-1.json.gz"),
        ),
        ("hf:a/b/c=1/d+e(f).csv", ("a/b", "main", "c=1/d+e(f).csv")),
    ],
)
def test_names_of_files_in_datasets(name: str, expected: tuple[str, str, str]) -> None:
    assert names.parse_dataset_file(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("", "x", "a.csv", "a/b", "a/b/", "a/b//c", "/a/b/c", "a/b/../c", "a/b/./c", "a/b/.c", "a/../c", "../a/b"),
        *("a/b/c\\d", "a/b/c\n", "a/b/\x1b[31m", "a/b@/c", "a/b@../c", "a/b@-x/c", "a@v/b/c", "a--b/c/d", "ünï/b/c"),
        *("a/b/ünï.csv", "a/b/" + "c" * 300, "a/b/c?d", "a/b/c%2e", "a/b/c#d"),
    ],
)
def test_what_names_no_file_of_a_dataset_is_refused_and_shown_escaped(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        names.parse_dataset_file("hf:" + name)
    assert str(caught.value).startswith(repr(("hf:" + name)[:200])) and str(caught.value).isprintable()
    assert names.DATASET_FORM in str(caught.value)
