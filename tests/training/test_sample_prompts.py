"""The sample prompts: held-out records and blocks, as the data has them."""

import json
from pathlib import Path

import pytest
import torch

from gpt2cli import tokenizer
from gpt2cli.config import DataConfig, TrainConfig
from gpt2cli.data.dataset import from_masked, from_sequences
from gpt2cli.data.open_data import load_data
from gpt2cli.data.tokenized_records import tokenize_records
from gpt2cli.data.turns import template_for
from gpt2cli.exchanges import prompt_ids
from gpt2cli.prompts import ALPACA, SEED, PromptTemplate
from gpt2cli.training.sample_prompts import BEGINNING, SAMPLING, given_prompts, prompts_from
from tests.data.records import as_read, conversation

ODD = PromptTemplate("Q: {instruction} ({input})\nA:", "{instruction}{instruction}=")
RECORDS = [
    {
        "instruction": f"Say {word}!",
        "input": "### Input:" if i % 2 else "",
        "output": f"{word} it is.\n\n### Response:\n",
    }
    for i, word in enumerate(["one", "two", "three", "naïve", "日本", "six"])
]


@pytest.mark.parametrize("template", [ALPACA, SEED, ODD], ids=["alpaca", "seed", "odd"])
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_records_are_asked_as_they_are_written(tmp_path, template, loss_on):
    (tmp_path / "r.json").write_text(json.dumps(RECORDS))
    train = TrainConfig(loss_on=loss_on)
    splits = load_data(
        tmp_path / "r.json", train, DataConfig(val_fraction=0.5, test_fraction=0), 200, template=template
    )
    found = prompts_from(splits.val, template)
    assert len(found) == len(splits.val) == 3
    by_shown = {"\n".join(filter(None, (r["instruction"], r["input"]))): r for r in RECORDS}
    for prompt in found:
        record = by_shown[prompt.shown]
        assert tokenizer.decode(prompt.ids) == template.prompt(record["instruction"], record["input"])
        assert prompt.expected == record["output"]


def test_records_of_another_template_are_shown_whole(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(RECORDS))
    splits = load_data(tmp_path / "r.json", TrainConfig(), DataConfig(0.5, 0), 200)
    assert prompts_from(splits.val, ODD)[0].shown.startswith("Below is an instruction")


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_a_conversation_is_asked_its_last_question(loss_on):
    records = [
        conversation("Hi.", "Hello!", "Who are you?", "A fox.", "Why?", "### Response:\nI was born so."),
        conversation("Hi.", "Hello!", "### Instruction:\nSay <|endoftext|>.", "<|endoftext|>", system="Be brief."),
        conversation("Hi.", "Hello!"),
    ]
    data = tokenize_records(as_read(*records), Path("a.json"), 256, loss_on, DataConfig()).dataset
    found = prompts_from(data, ALPACA)
    assert [prompt.expected for prompt in found] == [record.output for record in records]
    assert [prompt.shown for prompt in found] == [record.instruction for record in records]
    for prompt, record in zip(found, records, strict=True):
        assert prompt.ids == prompt_ids(template_for(record, ALPACA), record.earlier, record)


def test_sequences_of_unknown_prompts_have_no_sample_prompt():
    ids = [*tokenizer.encode("Q: Why? A: Because."), tokenizer.END_OF_TEXT_ID]
    assert prompts_from(from_sequences([tensor(ids)], [1]), ALPACA) == []
    odd = [5, tokenizer.END_OF_TEXT_ID, 6]
    mask = torch.tensor([False, True, False])
    assert prompts_from(from_masked([tensor(odd)], [mask]), ALPACA) == []


def test_text_is_continued_from_the_first_whole_word():
    ids = tokenizer.encode("<|endoftext|>ing of the " + "house was old and the rain fell on it. " * 20)
    [prompt] = prompts_from(from_sequences([tensor(ids)], [1]), None)
    read = tokenizer.decode(prompt.ids)
    assert read.startswith(" of the house") and prompt.shown == read.strip()
    assert len(prompt.ids) == BEGINNING
    assert len(tokenizer.encode(prompt.expected)) == SAMPLING.max_new_tokens
    assert (read + prompt.expected) in tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["<|endoftext|>", "a", "<|endoftext|>Hi.<|endoftext|>", "日本" * 9, " \n \n"])
def test_any_block_gives_a_prompt_or_none(text):
    block = tokenizer.encode(text)
    for prompt in prompts_from(from_sequences([tensor([*block, *block])], [1]), None):
        read = tokenizer.decode(prompt.ids)
        assert read.strip() and "<|endoftext|>" not in read and "\ufffd" not in read


def test_given_prompts_have_no_answer():
    [in_template] = given_prompts(("Who?",), ALPACA)
    assert (in_template.shown, in_template.expected) == ("Who?", None)
    assert tokenizer.decode(in_template.ids) == ALPACA.prompt("Who?")
    assert tokenizer.decode(given_prompts(("Who?",), None)[0].ids) == "Who?"


def tensor(ids):
    return torch.tensor(ids).to(torch.uint16)
