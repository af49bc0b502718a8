"""The rows of tokens: against plain definitions, and against `evaluate`."""

import pytest
import torch

from gpt2cli import tokenizer
from gpt2cli.config import ExplainConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.evaluation.likelihood import TextSource, score
from gpt2cli.inference.torch_decoder import TorchDecoder
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from gpt2cli.insight.token_rows import tokens
from tests import models


def rows_of(model, ids, **config):
    [found] = tokens(Subject(model, Question(tuple(ids))), ExplainConfig(**config))
    return found.rows


@torch.no_grad()
def test_each_token_is_judged_by_the_distribution_before_it(model, ids):
    rows = rows_of(model, ids, top=4)
    probabilities = model(torch.tensor([ids]))[0].softmax(dim=-1).double()
    assert (rows[0].logprob, rows[0].rank, rows[0].entropy, rows[0].top) == (None, None, None, ())
    for id, row, before in zip(ids[1:], rows[1:], probabilities[:-1], strict=True):
        assert row.logprob == pytest.approx(float(before[id].log()), abs=1e-4)
        assert row.rank == pytest.approx(int((before > before[id]).sum()) + 1, abs=2)  # rounding orders near ties
        assert row.entropy == pytest.approx(float(-(before * before.log()).sum()), abs=1e-4)
        assert [choice.id for choice in row.top] == before.topk(4).indices.tolist()
        assert [choice.probability for choice in row.top] == pytest.approx(before.topk(4).values.tolist(), rel=1e-4)


def test_texts_and_bytes_are_the_tokens():
    ids = [*tokenizer.encode("Café ☕"), 50256]
    rows = rows_of(models.small_model(), ids)
    assert [row.id for row in rows] == ids
    assert b"".join(bytes(row.bytes) for row in rows).decode() == "Café ☕<|endoftext|>"
    assert rows[0].text == "C"


def test_surprisals_add_up_to_what_evaluate_says(model, ids):
    rows = rows_of(model, [tokenizer.END_OF_TEXT_ID, *ids])
    source = TextSource([torch.tensor(ids).to(torch.uint16)], model.config.block_size, model.config.block_size)
    [loss] = score(TorchDecoder(model), source, range(1), 1024).losses
    assert -sum(row.logprob for row in rows[1:]) == pytest.approx(loss, rel=1e-5)


def test_text_that_is_added_changes_nothing_before_it(model, ids):
    for row, other in zip(rows_of(model, ids), rows_of(model, ids[:8]), strict=False):
        assert (row.id, row.rank) == (other.id, other.rank)
        assert row.logprob == pytest.approx(other.logprob, abs=1e-5)
        assert row.entropy == pytest.approx(other.entropy, abs=1e-5)


def test_a_long_prompt_is_read_in_pieces(model, ids, monkeypatch):
    whole = rows_of(model, ids)
    monkeypatch.setattr("gpt2cli.insight.token_rows.LOGIT_ROWS", 7)
    in_pieces = rows_of(model, ids)
    assert [row.rank for row in in_pieces] == [row.rank for row in whole]
    assert [row.logprob for row in in_pieces[1:]] == pytest.approx([row.logprob for row in whole[1:]], abs=1e-5)


def test_one_token_has_one_row(model):
    [row] = rows_of(model, [11])
    assert (row.text, row.logprob) == (",", None)


def test_a_token_that_the_model_does_not_know_is_said():
    model = models.small_model(models.GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=65))
    for question in (Question((1, 70)), Question((1,), target=70), Question((1,), against=(70,))):
        with pytest.raises(CheckpointError, match="token 70 is not among the 65"):
            Subject(model, question)
