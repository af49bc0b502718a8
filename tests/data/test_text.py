"""Plain text in blocks: every token is a target exactly once, and none is invented."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.config import DataConfig
from gpt2cli.data.dataset import TokenDataset
from gpt2cli.data.kinds import text_files
from gpt2cli.data.text import blocks, left_out_of, read_documents, read_text, tokenize
from gpt2cli.errors import DataError
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode

STORY = "The fox saw the crow. " * 40 + "<|endoftext|>"


def targets(data: TokenDataset) -> list[int]:
    """All tokens that are learned, in order."""
    return [token for i in range(len(data)) for token in data[i][0][data[i][1]].tolist()]


@given(st.integers(0, 40), st.integers(1, 12))
@settings(deadline=None)
def test_blocks_cover_a_stream_exactly_once(length: int, block_size: int) -> None:
    stream = torch.arange(length).to(torch.uint16)
    data = blocks(stream, block_size)
    assert targets(data) == list(range(1, length))
    assert all(2 <= n <= block_size + 1 for n in data.lengths.tolist())
    assert (data.lengths[:-1] == block_size + 1).all()
    # what is read: every token but the last, each before what it predicts
    assert [token for i in range(len(data)) for token in data[i][0][:-1].tolist()] == list(range(length - 1))


@pytest.mark.parametrize("data", [DataConfig(0, 0), DataConfig(0.2, 0.1), DataConfig(0.5, 0)])
def test_one_text_is_cut_at_its_end(tmp_path: Path, data: DataConfig) -> None:
    file = tmp_path / "story.txt"
    file.write_text("\ufeff" + STORY, encoding="utf-8")
    text = read_text(file, 32, data)
    ids = encode(STORY, allow_special=False)
    assert END_OF_TEXT_ID not in ids
    assert text.train[0][0][0] == END_OF_TEXT_ID
    assert targets(text.train) + targets(text.val) + targets(text.test) == [*ids, END_OF_TEXT_ID]
    n = len(ids) + 1
    assert (text.val.n_targets, text.test.n_targets) == (round(n * data.val_fraction), round(n * data.test_fraction))


def test_several_texts_are_divided_whole(tmp_path: Path) -> None:
    stories = {f"{i}.txt": f"Story {i} goes on and on. " * (i + 1) for i in range(8)}
    for name, story in (stories | {"empty.txt": "", "notes.md": "no"}).items():
        (tmp_path / name).write_text(story, encoding="utf-8")
    text = read_text(tmp_path, 16, DataConfig(0.25, 0.1))
    assert text.info == {"files": 8}
    (held_out,) = text.notes
    found: list[list[str]] = []
    for part, count in ((text.train, 5), (text.val, 2), (text.test, 1)):
        learned = targets(part)
        assert learned.count(END_OF_TEXT_ID) == count
        found.append([name for name, story in stories.items() if _holds(learned, [*encode(story), END_OF_TEXT_ID])])
    assert sorted(chain.from_iterable(found)) == sorted(stories)
    assert [len(names) for names in found] == [5, 2, 1]
    share = 100 * len(targets(text.val)) / sum(len(targets(part)) for part in text.by_name().values())
    held = "holds out 2 of 8 files for validation, with"
    assert held_out == f"{held} {share:.0f} % of the tokens: {', '.join(map(repr, sorted(found[1])))}"


def _holds(ids: list[int], part: list[int]) -> bool:
    return any(ids[i : i + len(part)] == part and (i == 0 or ids[i - 1] == END_OF_TEXT_ID) for i in range(len(ids)))


def test_a_folder_is_read_with_its_subfolders_by_their_paths(tmp_path: Path) -> None:
    names = ["a/b/c.txt", "a/z.TXT", "a.txt", "a0/b.txt", "b.txt"]
    for name in reversed([*names, ".trash/old.txt", "a/._z.txt"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"The tale of {name}.", encoding="utf-8")
    elsewhere = tmp_path.with_name(tmp_path.name + "-elsewhere")
    elsewhere.mkdir()
    (elsewhere / "far.txt").write_text("From far away.", encoding="utf-8")
    (tmp_path / "a" / "around").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "away").symlink_to(elsewhere, target_is_directory=True)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c.txt").symlink_to(elsewhere / "far.txt")  # a link to a file is that file
    found = text_files(tmp_path)
    assert [*found] == [*names, "c.txt"] and all(found[name] == tmp_path / name for name in found)
    assert read_text(tmp_path, 16, DataConfig()).info == {"files": 6}
    assert left_out_of(tmp_path) == (
        f"{tmp_path}: left out 5 entries that are not visible .txt files, the first of them '.trash'",
    )


def test_a_subset_of_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(STORY, encoding="utf-8")
    text = read_text(tmp_path, 16, DataConfig(0.1, 0, subset=3))
    assert len(text.train) == 3


def test_newlines_of_windows_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    text = "The fox.\n\nThe crow.\n" * 20
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    a, b = (read_text(tmp_path / name, 16, DataConfig(0.2, 0)) for name in ("a.txt", "b.txt"))
    assert a.train.fingerprint() == b.train.fingerprint() and a.val.fingerprint() == b.val.fingerprint()


END = "<|endoftext|>"


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (f"One.\n{END}\nTwo.\n", ["One.\n", "Two.\n"]),
        (f"{END}\r\nOne.\r\n{END} \t\r\n{END}\n\n{END}\nTwo.\r\n{END}", ["One.\n", "Two.\n"]),
        (f"One.{END}\nTwo. {END}\n{END}.\n {END}", [f"One.{END}\nTwo. {END}\n{END}.\n {END}"]),
        (f" \n{END}\n\t", []),
        ("", []),
    ],
)
def test_a_line_of_end_of_text_separates_documents(tmp_path: Path, text: str, documents: list[str]) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read_documents(tmp_path / "a.txt") == documents
    if documents:
        stream = targets(read_text(tmp_path / "a.txt", 8, DataConfig(0, 0)).train)
        assert stream == [id for part in documents for id in (*encode(part, allow_special=False), END_OF_TEXT_ID)]


def test_documents_are_tokenized_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [f"Story {i} goes on. " * (i % 4 + 1) for i in range(30)]
    monkeypatch.setattr("gpt2cli.data.encoding.BATCH", 7)
    assert [tokens.tolist() for tokens in tokenize(documents)] == [encode(document) for document in documents]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"caf\xe9!", r"a.txt is not valid UTF-8 at byte 3 \(looks like text in Latin-1 or a similar encoding\): conv"),
        (b"x" * 600 + "Äpfel".encode("cp1252"), r"at byte 600 \(looks like text in Latin-1"),
        (b"\xff\x01\x02\x03", r"at byte 0 \(looks like unknown binary data\)"),
        (b"", "no text"),
        (b"\xef\xbb\xbf", "no"),
    ],
)
def test_what_is_no_text(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_text(tmp_path, 16, DataConfig())


def test_the_line_ends_of_the_first_macs_end_lines(tmp_path: Path) -> None:
    (tmp_path / "mac.txt").write_bytes(b"One tale.\r<|endoftext|>\rTwo\rtales.\r")
    assert read_documents(tmp_path / "mac.txt") == ["One tale.\n", "Two\ntales.\n"]
    (tmp_path / "mixed.txt").write_bytes(b"50 %\r100 %\n")
    assert read_documents(tmp_path / "mixed.txt") == ["50 %\r100 %\n"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_text_in_utf16_is_refused_also_without_its_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "windows.txt").write_bytes(STORY.encode(encoding))
    with pytest.raises(DataError, match="UTF-16"):
        read_documents(tmp_path / "windows.txt")
