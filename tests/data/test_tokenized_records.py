"""Records as tokens: their texts, their targets, and the records that are cut or dropped."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.config import DataConfig
from gpt2cli.data import encoding as encoding_of_data
from gpt2cli.data import turns
from gpt2cli.data.encoding import LONGEST_TOKEN
from gpt2cli.data.open_data import load_records
from gpt2cli.data.records import Record, read_records
from gpt2cli.data.tokenized_records import TokenizedRecords, tokenize_records
from gpt2cli.errors import DataError
from gpt2cli.exchanges import Exchange
from gpt2cli.prompts import ALPACA, SEED, PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID, decode, encode, encode_plain, encoding
from tests.data.records import RECORDS, as_read, conversation, many, parts_of, write_json

tokenize = partial(tokenize_records, path=Path("a.json"), loss_on="response", data=DataConfig())


def read(path: Path, *, skip_bad: bool = False, **settings: Any) -> TokenizedRecords:
    return tokenize(read_records(path, skip_bad), path=path, **settings)


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
            found: TokenizedRecords = read(file, max_length=max_length)
        except DataError as error:
            assert f"6 records whose last prompt alone fills the {max_length} tokens" in str(error)
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


def test_records_have_the_tokens_and_targets_of_earlier_versions(tmp_path: Path) -> None:
    file = write_json(tmp_path / "a.json", [*RECORDS, *many(34)])
    expected = {
        "response": "b962c17d1c6ee5164c67670dc3e354d6b713f94ff8c65dad7cc97ef01eb2d877",
        "all": "61e7cd03d606c71bd4568fe865e412d4b106f71873f879720cb3a6368b154169",
    }
    for loss_on, digest in expected.items():
        assert load_records(file, 60, loss_on, DataConfig()).info["fingerprint"] == digest


TEXT = st.one_of(st.text(max_size=20), st.sampled_from(["a<|endoftext|>", "\n\n", "### Response:\n", "Γειά 👋"]))
ANSWER = TEXT.filter(str.strip)
EXCHANGE = st.builds(Exchange, TEXT, TEXT, ANSWER)
CONVERSATION = st.builds(Record, TEXT, TEXT, ANSWER, st.lists(EXCHANGE, max_size=4).map(tuple), TEXT)
BARE = PromptTemplate("{instruction} {input}", "{instruction}")
TEMPLATE = st.sampled_from([ALPACA, SEED, ALPACA.with_system("Be brief."), BARE])


@given(st.lists(CONVERSATION, min_size=1, max_size=4), TEMPLATE)
@settings(deadline=None)
def test_a_conversation_is_learned_as_chat_sends_it(records: list[Record], template: PromptTemplate) -> None:
    learned = tokenize(as_read(*records), max_length=100_000, template=template)
    whole = tokenize(as_read(*records), max_length=100_000, template=template, loss_on="all")
    for i, record in enumerate(records):
        ids, is_target = (tensor.tolist() for tensor in learned.dataset[i])
        expected = [False] * len(ids)
        for before, answer in parts_of(record, template):
            end = len(before) + len(answer)
            assert ids[:end] == before + answer
            expected[len(before) : end] = [True] * len(answer)
        assert end == len(ids) and is_target == [False, *expected[1:]]
        assert whole.dataset[i][0].tolist() == ids and whole.dataset[i][1].tolist() == [False] + [True] * (len(ids) - 1)
    turns = [len(record.exchanges) for record in records]
    assert (learned.counts.turns, learned.turns, learned.counts.shortened) == (sum(turns), max(turns), 0)


@given(CONVERSATION, st.integers(1, 300), st.sampled_from(["response", "all"]))
@settings(deadline=None)
def test_a_long_conversation_keeps_whole_last_exchanges(
    record: Record, max_length: int, loss_on: Literal["response", "all"]
) -> None:
    def ids_of(number: int) -> list[int]:
        """The tokens of the last exchanges."""
        before, answer = parts_of(replace(record, earlier=record.exchanges[-number:-1]), ALPACA)[-1]
        return before + answer

    number = max([n for n in range(1, len(record.exchanges) + 1) if len(ids_of(n)) <= max_length], default=1)
    try:
        found = tokenize(as_read(record), max_length=max_length, loss_on=loss_on)
    except DataError:
        assert len(parts_of(replace(record, earlier=()), ALPACA)[0][0]) >= max_length
        return
    [kept] = found.records
    assert found.dataset[0][0].tolist() == ids_of(number)[:max_length]
    assert kept.exchanges[:-1] == record.exchanges[-number:-1]
    is_cut = len(ids_of(1)) > max_length
    assert found.counts.truncated == is_cut and (is_cut or kept.output == record.output)
    assert found.counts.shortened == (number < len(record.exchanges))
    assert (found.counts.turns, found.turns) == (number, number)


@pytest.mark.parametrize("last", ["Bye.", "Bye " * 5_000])
def test_first_exchanges_that_cannot_fit_are_not_encoded(monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    sizes = list[int]()

    def encode_many(texts: list[str]) -> list[list[int]]:
        sizes.append(sum(map(len, texts)))
        return [encode_plain(text) for text in texts]

    monkeypatch.setattr(turns, "encode_many", encode_many)
    texts = ["Hi.", "Hello!"] * 5_000
    found = tokenize(as_read(conversation(*texts[:-1], last, system="Be brief. " * 20)), max_length=100)
    assert sum(sizes) < 4 * 100 * LONGEST_TOKEN and found.counts.shortened == 1
    assert found.counts.truncated == (last != "Bye.") and found.turns == 1


def test_batches_count_the_system_text_of_each_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_of_data, "BATCH_CHARACTERS", 2_000)
    done = list[int]()
    records = [conversation("Hi.", "Hello!", "Bye.", "Bye!", system="Be brief. " * 50)] * 6
    tokenize(as_read(*records), max_length=1000, on_batch=lambda count, _: done.append(count))
    assert done == [2, 4, 6]


def test_what_was_left_out_of_conversations_is_told() -> None:
    long = conversation(*["Say that again, please.", "Again."] * 9)
    short = conversation("Hi.", "Hello!")
    for number, expected in (
        (1, "1 conversation exceeds 100 tokens: its"),
        (2, "2 conversations exceed 100 tokens: their"),
    ):
        found = tokenize(as_read(*[long] * number, short), max_length=100)
        assert found.notes[-1] == f"{expected} first turns are left out"
        assert found.counts.shortened == number and found.counts.kept == number + 1
    assert tokenize(as_read(short), max_length=100).notes == ()


def test_a_system_text_that_all_share_becomes_the_templates() -> None:
    first = conversation("Hi.", "Hello!", system="You are a cat.")
    other = conversation("Who are you?", "A cat.", system=" You are a cat.\n")
    found = tokenize(as_read(first, other), max_length=200)
    assert found.template == ALPACA.with_system("You are a cat.") and found.notes == ()
    assert decode(found.dataset[0][0].tolist()).startswith("You are a cat.\n\n### Instruction:\nHi.")
    for different in (replace(other, system="You are a dog."), replace(other, system=" ")):
        found = tokenize(as_read(first, different), max_length=200, template=SEED)
        assert found.template == SEED
        assert decode(found.dataset[0][0].tolist()).startswith("You are a cat.")
    assert decode(found.dataset[1][0].tolist()).startswith("Below is")
    chosen = ALPACA.with_system("Be brief.")
    assert tokenize(as_read(replace(first, system="")), max_length=200, template=chosen).template == chosen


def test_a_system_text_without_a_place_is_left_out_and_told() -> None:
    records = [conversation("Hi.", "Hello!", system="Purr."), conversation("Hi.", "Hello!")]
    found = tokenize(as_read(*records), max_length=200, template=BARE)
    assert decode(found.dataset[0][0].tolist()) == "Hi.Hello!<|endoftext|>" and found.template == BARE
    assert [record.system for record in found.records] == ["", ""]
    assert found.notes == (
        "1 record has a system text, which is left out: the prompt template has no preamble, which it could replace",
    )


def test_an_empty_prompt_leaves_the_first_token_without_loss() -> None:
    found = tokenize(as_read(Record("", "", "Yes.")), max_length=9, template=BARE)
    assert decode(found.dataset[0][0].tolist()) == "Yes.<|endoftext|>"
    assert found.dataset[0][1].tolist() == [False, True, True]
    with pytest.raises(DataError, match="no record is left"):
        tokenize(as_read(Record("", "", "Yes.")), max_length=1, template=BARE)
