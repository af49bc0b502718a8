"""The tokens of records and conversations: those of training, and of a chat."""

from dataclasses import replace

import pytest

from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.open_data import load_records
from gpt2cli.data.records import Record
from gpt2cli.data.turns import template_for
from gpt2cli.evaluation.evaluation_data import Instructions, read_data
from gpt2cli.evaluation.layout import lay_out, sequences
from gpt2cli.exchanges import Exchange, prompt_ids
from gpt2cli.prompts import ALPACA, PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode_plain
from tests.data.records import RECORDS, write_json

BARE = PromptTemplate("{instruction}{input}", "{instruction}")
TALK = Record(
    "And of Spain?",
    "",
    "Madrid.",
    earlier=(
        Exchange("What is the capital of France?", "", "Paris."),
        Exchange("Say it in", "Greek", "Παρίσι <|endoftext|>"),
    ),
)


def answer_of(record: Record) -> list[int]:
    return [*encode_plain(record.output), END_OF_TEXT_ID]


def test_sequences_are_those_of_training(tmp_path):
    file = write_json(tmp_path / "records.json", [*RECORDS, {"instruction": "long " * 300, "output": "no"}])
    trained = load_records(file, 60, "response", DataConfig(0, 0)).train
    data = read_data(file, "records.json", None, 60, TrainConfig(), DataConfig())
    assert isinstance(data, Instructions)
    records, responses = zip(*((task.record, task.response) for task in data.tasks), strict=True)
    laid_out = lay_out(records, responses, ALPACA, 60)
    assert sequences([turns for turns in laid_out if turns]).fingerprint() == trained.fingerprint()
    fits = [len(encode_plain(ALPACA.prompt(record.instruction, record.input))) < 60 for record in records]
    assert [bool(turns) for turns in laid_out] == fits and not fits[-1]


@pytest.mark.parametrize("template", [ALPACA, BARE])
def test_the_answers_of_a_conversation_are_its_targets(template):
    [turns] = lay_out([TALK], [answer_of(TALK)], template, 1000)
    ids, is_target = sequences([turns])[0]
    assert ids.tolist() == prompt_ids(template, TALK.earlier, TALK) + answer_of(TALK)
    answers = [answer_of(Record(it.instruction, it.input, it.output)) for it in TALK.exchanges]
    assert ids[is_target].tolist() == [token for answer in answers for token in answer]
    assert [turn.answer for turn in turns] == answers


def test_a_conversation_keeps_the_last_turns_that_fit_as_a_whole():
    [whole] = lay_out([TALK], [answer_of(TALK)], ALPACA, 1000)
    sizes = [len(turn.prompt) + len(turn.answer) for turn in whole]
    for max_length in range(1, sum(sizes) + 2):
        [turns] = lay_out([TALK], [answer_of(TALK)], ALPACA, max_length)
        if max_length <= len(whole[-1].prompt):
            assert turns == []
            continue
        fit = max([n for n in (1, 2, 3) if sum(sizes[-n:]) <= max_length], default=1)
        assert turns[:-1] == whole[-fit:-1]
        assert turns[-1].answer == whole[-1].answer[: max_length - len(whole[-1].prompt)]


def test_a_system_text_replaces_the_preamble_in_every_turn():
    talk = replace(TALK, system="Be brief.")
    brief = ALPACA.with_system("Be brief.")
    assert lay_out([talk, TALK], [[1], [1]], ALPACA, 999) == [
        *lay_out([TALK], [[1]], brief, 999),
        *lay_out([TALK], [[1]], ALPACA, 999),
    ]
    assert template_for(talk, ALPACA.with_system("Rhyme.")) == brief
    assert template_for(talk, BARE) == BARE and template_for(TALK, brief) == brief


def test_the_first_token_is_no_target_even_if_the_prompt_is_empty():
    [turns] = lay_out([Record("", "", "Hello there")], [encode_plain("Hello there")], BARE, 10)
    assert turns[0].prompt == [] and sequences([turns])[0][1].tolist() == [False, True]
