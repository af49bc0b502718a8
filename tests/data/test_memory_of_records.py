"""The memory of a process that reads 100,000 records is bounded, whatever their format and the file's.

So is that of one that also tokenizes and divides them.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COUNT = 100_000
MOST = 700 * 2**20
"""Bytes of the largest resident set."""
MOST_WITH_TOKENS = 1200 * 2**20
"""The same with PyTorch, 46 million tokens of 2 bytes, their mask of 1 byte, and a copy of both in the splits."""
AROUND = {".json": ("[", ",\n", "]"), ".object.json": ('{"data": [', ",\n", "]}"), ".jsonl": ("", "\n", "\n")}
"""For each ending what stands before the records, between them, and after them."""
QUESTION, ANSWER = "How much is this, and why? " * 3, "It is as much as that, because it is. " * 10

READ = """
import sys
from pathlib import Path
from gpt2cli.data.records import read_records
from gpt2cli.data.text_records import is_plain_text, read_text_records
from gpt2cli.model.peak_memory import peak_rss_mb

path = Path(sys.argv[1])
found = read_text_records(path).texts if is_plain_text(path) else read_records(path).good
print(len(found), round(peak_rss_mb() * 2**20))
"""
LOAD = """
import sys
from pathlib import Path
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.open_data import load_data
from gpt2cli.model.peak_memory import peak_rss_mb

splits = load_data(Path(sys.argv[1]), TrainConfig(), DataConfig(), 1024)
print(sum(map(len, splits.by_name().values())), round(peak_rss_mb() * 2**20))
"""


def value(form: str, i: int) -> dict[str, Any]:
    question, answer = f"{i} {QUESTION}", ANSWER + ("👋" if i == 7 else "é")
    if form == "messages":
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}] * 3
        return {"messages": [{"role": "system", "content": "Be brief."}, *turns]}
    if form == "conversations":
        return {
            "id": f"{i}",
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}] * 3,
        }
    if form == "preferences":
        return {"prompt": question, "chosen": answer, "rejected": answer}
    return {"text": answer} if form == "text" else {"instruction": question, "input": "", "output": answer}


def write(path: Path, form: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, [*value(form, 0)])
            table.writeheader()
            table.writerows(value(form, i) for i in range(COUNT))
        else:
            start, between, end = AROUND["".join(path.suffixes)]
            file.write(start)
            for i in range(COUNT):
                file.write((between if i else "") + json.dumps(value(form, i), ensure_ascii=False))
            file.write(end)
    return path


def peak(code: str, path: Path) -> int:
    """Bytes of the largest resident set of a process that runs this code on the file."""
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, found = map(int, ran.stdout.split())
    print(f"{path.name}: {path.stat().st_size / 2**20:.0f} MB on disk, {found / 2**20:.0f} MB resident")
    assert count == COUNT
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "ending"),
    [
        *((form, ending) for form in ("records", "preferences", "text") for ending in ("csv", "json", "jsonl")),
        *((form, ending) for form in ("messages", "conversations") for ending in ("json", "object.json", "jsonl")),
    ],
)
def test_100_000_records_are_read_in_little_memory(tmp_path: Path, form: str, ending: str) -> None:
    assert peak(READ, write(tmp_path / f"{form}.{ending}", form)) < MOST


@pytest.mark.slow
def test_100_000_conversations_are_tokenized_in_a_bounded_memory(tmp_path: Path) -> None:
    assert peak(LOAD, write(tmp_path / "tokens of messages.jsonl", "messages")) < MOST_WITH_TOKENS
