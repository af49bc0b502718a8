"""Heads: their scores by their definitions, and known ones."""

import math
from dataclasses import asdict

import pytest
import torch

from gpt2cli.config import ExplainConfig, GPTConfig
from gpt2cli.errors import DivergedError
from gpt2cli.insight.attention import attention, label, repeated_sequence, watch
from gpt2cli.insight.findings import HeadScores
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from tests import models


def heads_of(model, ids, **config):
    [found] = attention(Subject(model, Question(tuple(ids))), ExplainConfig(**config))
    return found.rows


def scores_of(pattern, ids):
    """The scores of a pattern in plain loops."""

    def mean(numbers):
        return sum(numbers) / len(numbers) if numbers else None

    rows = range(len(ids))
    earlier = {i: [j for j in range(i) if ids[j] == ids[i]] for i in rows}
    return {
        "previous": mean([pattern[i][i - 1] for i in rows if i]),
        "duplicate": mean([sum(pattern[i][j] for j in earlier[i]) for i in rows if earlier[i]]),
        "induction": mean([sum(pattern[i][j + 1] for j in earlier[i]) for i in rows if earlier[i]]),
        "first": mean([pattern[i][0] for i in rows if i]),
        "entropy": mean([-sum(a * math.log(a) for a in row if a) for row in pattern]),
    }


def test_scores_are_those_of_the_pattern(model, ids):
    rows = heads_of(model, ids)
    assert [(row.layer, row.head) for row in rows] == [
        (layer, head) for layer in range(model.config.n_layer) for head in range(model.config.n_head)
    ]
    for row in rows:
        assert [len(line) for line in row.pattern] == list(range(1, len(ids) + 1))
        assert [sum(line) for line in row.pattern] == pytest.approx([1] * len(ids))
        assert asdict(row.on_prompt) == pytest.approx(scores_of(row.pattern, ids), abs=1e-5)


def test_the_repeated_sequence_has_scores_too(model):
    ids = repeated_sequence(model, 5)
    scores, patterns = watch(model, ids, keep_patterns=True)
    for row, found, pattern in zip(heads_of(model, [1, 2], seed=5), scores, patterns, strict=True):
        assert row.repeated == found
        assert asdict(found) == pytest.approx(scores_of(pattern, ids), abs=1e-5)


def test_without_queries_and_keys_the_scores_are_known_fractions():
    model = models.small_model()
    with torch.no_grad():
        for block in model.h:
            block.attn.c_attn.weight[:96] = 0
            block.attn.c_attn.bias[:96] = 0
    expected = {
        "previous": (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4,
        "duplicate": (1 / 4 + 2 / 5) / 2,  # of 7, 8, 9, 7, 7
        "induction": (1 / 4 + 2 / 5) / 2,
        "first": (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4,
        "entropy": sum(map(math.log, range(1, 6))) / 5,
    }
    for row in heads_of(model, [7, 8, 9, 7, 7]):
        assert asdict(row.on_prompt) == pytest.approx(expected)
        assert row.label == ""


def test_a_score_that_no_token_can_have_is_none(model):
    [first, *_] = heads_of(model, [5])
    assert asdict(first.on_prompt) == {
        "previous": None, "duplicate": None, "induction": None, "first": None, "entropy": 0,
    }  # fmt: skip
    assert first.pattern == ((1.0,),)
    assert heads_of(model, [5, 6])[0].on_prompt.induction is None


def test_text_that_is_added_changes_no_pattern_before_it(model, ids):
    for row, shorter in zip(heads_of(model, ids), heads_of(model, ids[:8]), strict=True):
        for line, other in zip(row.pattern, shorter.pattern, strict=False):
            assert line == pytest.approx(other, abs=1e-5)
        assert row.repeated == shorter.repeated


def test_heads_in_another_order_permute_the_table(ids):
    model, permuted, order = models.small_model(), models.small_model(), [2, 0, 1]
    channels = torch.cat([torch.arange(16) + 16 * head for head in order])
    with torch.no_grad():
        attn = permuted.h[1].attn
        for parameter in attn.c_attn.parameters():
            parameter.copy_(torch.cat([part[channels] for part in parameter.chunk(3)]))
        attn.c_proj.weight.copy_(attn.c_proj.weight[:, channels].clone())
    before, after = heads_of(model, ids), heads_of(permuted, ids)
    for number, head in enumerate([0, 1, 2, *(3 + head for head in order)]):
        assert asdict(after[number].on_prompt) == pytest.approx(asdict(before[head].on_prompt), abs=1e-5)
        assert after[number].label == before[head].label
        assert after[number].head == number % 3


@pytest.mark.parametrize(
    "name, scores",
    [
        ("previous", (0.6, 0.1, 0.5, 0.9)),
        ("duplicate", (0.1, 0.41, 0.4, 0.1)),
        ("induction", (0.1, 0.0, 0.9, 0.0)),
        ("first", (0.39, 0.39, 0.39, 0.4)),
        ("", (0.39, 0.0, 0.2, 0.39)),
        ("", (None, None, None, None)),
    ],
)
def test_the_label_is_the_highest_score_but_first_comes_last(name, scores):
    assert label(HeadScores(*scores, entropy=1.0)) == name


def test_the_repeated_sequence_begins_with_the_end_of_text():
    first, *rest = repeated_sequence(models.small_model(GPTConfig(1, 1, 8, 1024, 50257)), 0)
    assert first == 50256
    assert len(rest) == 100
    assert rest[:50] == rest[50:]
    assert max(rest) < 50256


def test_without_the_end_of_text_the_sequence_begins_with_the_last_token():
    model = models.small_model(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=65))
    first, *rest = repeated_sequence(model, 0)
    assert first == 64
    assert len(rest) == 14
    assert max(rest) < 64
    assert len(heads_of(model, [5])) == 1


@pytest.mark.parametrize("window, length", [(37, 37), (8, 7), (2, 1), (1, 1)])
def test_a_small_window_has_a_short_sequence(window, length):
    model = models.small_model(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=window, vocab_size=50257))
    assert len(repeated_sequence(model, 0)) == length
    assert len(heads_of(model, [5])) == 1


def test_a_long_prompt_has_scores_without_patterns(model, ids, monkeypatch):
    n_heads = model.config.n_layer * model.config.n_head
    monkeypatch.setattr("gpt2cli.insight.attention.PATTERN_NUMBERS", n_heads * 19 * 20 // 2)
    long, short = heads_of(model, ids), heads_of(model, ids[:19])
    assert all(row.pattern is None and row.on_prompt.previous is not None for row in long)
    assert all(row.pattern is not None for row in short)


def test_numbers_that_are_not_finite_are_an_error(ids):
    model = models.small_model()
    with torch.no_grad():
        model.h[0].attn.c_attn.bias[0] = float("nan")
    with pytest.raises(DivergedError, match="not finite"):
        heads_of(model, ids)
