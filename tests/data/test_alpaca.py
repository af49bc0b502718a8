"""Records as tokens: their texts, their targets, and the records that are cut or dropped."""

from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from gpt2cli.config import DataConfig
from gpt2cli.data.alpaca import Alpaca, read_alpaca
from gpt2cli.data.encoding import LONGEST_TOKEN
from gpt2cli.errors import DataError
from gpt2cli.prompts import ALPACA
from gpt2cli.tokenizer import END_OF_TEXT_ID, decode, encode, encoding
from tests.data.records import RECORDS, many, write_json

read = partial(read_alpaca, loss_on="response", data=DataConfig())


def test_the_longest_token() -> None:
    assert max(map(len, encoding().token_byte_values())) == LONGEST_TOKEN


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_the_tokens_say_the_text_and_the_mask_covers_the_response(
    tmp_path: Path, loss_on: Literal["response", "all"]
) -> None:
    found = read(write_json(tmp_path / "a.json", RECORDS), max_length=200, loss_on=loss_on)
    assert len(found.dataset) == len(RECORDS)
    for i, record in enumerate(RECORDS):
        ids, is_target = found.dataset[i]
        first = int(found.dataset.first_targets[i])
        assert is_target.tolist() == [False] * first + [True] * (len(ids) - first)
        prompt = ALPACA.prompt(record["instruction"], record.get("input", ""))
        assert ids[-1] == END_OF_TEXT_ID
        assert decode(ids[:-1].tolist()) == prompt + record["output"]
        assert END_OF_TEXT_ID not in ids[:-1]
        if loss_on == "response":
            assert decode(ids[first:-1].tolist()) == record["output"]
            assert ids[:first].tolist() == encode(prompt, allow_special=False)
        else:
            assert first == 1
    assert found.counts.targets == sum(int(is_target.sum()) for _, is_target in found.dataset)


def test_cut_at_every_length(tmp_path: Path) -> None:
    file = write_json(tmp_path / "a.json", [*RECORDS, {"instruction": "Be silent.", "output": " \n"}])
    whole = read(file, max_length=1000)
    longest = int(whole.dataset.lengths.max())
    assert whole.counts.truncated == whole.counts.dropped_long == 0
    for max_length in range(30, longest + 1):
        try:
            found: Alpaca = read(file, max_length=max_length)
        except DataError as error:
            assert f"the prompts of 6 alone fill the {max_length} tokens" in str(error)
            continue
        kept = [i for i in range(6) if int(whole.dataset.first_targets[i]) < max_length]
        assert [found.dataset[i][0].tolist() for i in range(len(found.dataset))] == [
            whole.dataset[i][0].tolist()[:max_length] for i in kept
        ]
        counts = found.counts
        assert counts.truncated == sum(len(whole.dataset[i][0]) > max_length for i in kept)
        assert (counts.records, counts.dropped_empty, counts.kept) == (7, 1, len(kept))
        assert counts.records == counts.dropped_empty + counts.dropped_long + counts.kept
        assert (found.dataset.target_counts > 0).all() and (found.dataset.first_targets > 0).all()


def test_every_record_is_counted_once(tmp_path: Path) -> None:
    long = {"instruction": "Read this. " * 50, "output": "Done."}
    bad, empty = {"instruction": 1}, {"instruction": "Hush.", "output": ""}
    file = write_json(tmp_path / "a.json", [*many(20), long, bad, bad, empty])
    counts = read(file, max_length=60, data=DataConfig(subset=10, seed=3), skip_bad=True).counts
    assert (counts.records, counts.bad, counts.dropped_empty, counts.left_out) == (24, 2, 1, 11)
    assert counts.kept + counts.dropped_long == 10


def test_a_subset_is_by_chance_and_by_the_seed(tmp_path: Path) -> None:
    file = write_json(tmp_path / "a.json", many(50))
    first, again, other = (read(file, max_length=99, data=DataConfig(subset=10, seed=seed)) for seed in (0, 0, 1))
    assert first.dataset.fingerprint() == again.dataset.fingerprint() != other.dataset.fingerprint()
    assert read(file, max_length=99, data=DataConfig(subset=99)).counts.left_out == 0


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    file = write_json(tmp_path / "a.json", many(2500))
    read(file, max_length=99, on_batch=lambda done, total: seen.append((done, total)))
    assert seen == [(1000, 2500), (2000, 2500), (2500, 2500)]
