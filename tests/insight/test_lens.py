"""The lens: its end is the model, its beginning the embedding."""

import copy
import math
from dataclasses import astuple

import pytest
import torch
from torch.nn import functional as F

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.events import Advanced
from gpt2cli.insight.lens import lens
from gpt2cli.insight.passes import logits
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from gpt2cli.tokenizer import show


def lens_of(model, ids, target=None, **config):
    *_, found = lens(Subject(model, Question(tuple(ids), target)), ExplainConfig(**config))
    return found


@torch.no_grad()
def test_the_lens_after_the_last_block_is_the_model(model, ids):
    logprobs = model(torch.tensor([ids]))[0].log_softmax(dim=-1)
    last = lens_of(model, ids, target=7).rows[-1]
    assert last.target_logprob == pytest.approx(float(logprobs[-1, 7]), abs=1e-5)
    assert last.kl == 0
    assert [choice.probability for choice in last.top] == pytest.approx(logprobs[-1].exp().topk(10)[0].tolist())
    for place, row, following in zip(last.places, logprobs, [*ids[1:], 7], strict=True):
        assert place.id == int(row.argmax())
        assert place.text == show(place.id)
        assert place.probability == pytest.approx(float(row.max().exp()))
        assert place.next == pytest.approx(float(row[following].exp()), rel=1e-4)
        assert place.kl == 0


@torch.no_grad()
def test_each_row_is_the_lens_of_its_stream(model, ids):
    subject = Subject(model, Question(tuple(ids)))
    found = lens_of(model, ids)
    final = logits(model, subject.trace.final[0]).log_softmax(dim=-1)
    for row, stream in zip(found.rows, subject.trace.streams(), strict=True):
        logprobs = logits(model, stream[0]).log_softmax(dim=-1)
        kl = F.kl_div(logprobs, final, reduction="none", log_target=True).sum(dim=-1)
        assert [place.kl for place in row.places] == pytest.approx(kl.tolist(), abs=1e-5)
        assert row.kl == row.places[-1].kl
        assert [place.id for place in row.places] == logprobs.argmax(dim=-1).tolist()
        assert row.top[0].id == row.places[-1].id
        assert row.target_logprob == pytest.approx(math.log(row.places[-1].next), abs=1e-4)


def test_rows_are_named_after_the_parts(model, ids):
    found = [(row.layer, row.after) for row in lens_of(model, ids).rows]
    assert found[:4] == [(None, "embedding"), (0, "attn"), (0, "mlp"), (1, "attn")]
    assert found[-1] == (model.config.n_layer - 1, "mlp")
    assert len(found) == 2 * model.config.n_layer + 1


def test_without_any_part_all_rows_are_the_embeddings(model, ids):
    before = lens_of(model, ids, target=3).rows[0]
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for block in changed.h:
            for parameter in (*block.attn.c_proj.parameters(), *block.mlp.c_proj.parameters()):
                parameter.zero_()
        embedding = model.wte(torch.tensor(ids)) + model.wpe.weight[: len(ids)]
        likeliest = model.head(model.ln_f(embedding)).argmax(dim=-1)
    for row in lens_of(changed, ids, target=3).rows:
        assert row.top == before.top
        assert row.kl == 0
        assert [place.id for place in row.places] == likeliest.tolist()


def test_text_that_is_added_changes_nothing_before_it(model, ids):
    whole, prefix = lens_of(model, ids), lens_of(model, ids[:8])
    for row, shorter in zip(whole.rows, prefix.rows, strict=True):
        for place, other in zip(row.places[:7], shorter.places[:7], strict=True):
            assert place.id == other.id
            assert astuple(place)[2:] == pytest.approx(astuple(other)[2:], abs=1e-5, rel=1e-4)


def test_a_long_prompt_is_read_a_few_places_at_a_time(model, ids, monkeypatch):
    whole = lens_of(model, ids)
    monkeypatch.setattr("gpt2cli.insight.lens.LOGIT_ROWS", 7 * len(whole.rows))
    events = list(lens(Subject(model, Question(tuple(ids))), ExplainConfig()))
    assert events[:-1] == [Advanced("lens", done, 3) for done in (1, 2, 3)]
    for row, other in zip(events[-1].rows, whole.rows, strict=True):
        assert [place.id for place in row.places] == [place.id for place in other.places]
        assert [place.kl for place in row.places] == pytest.approx([place.kl for place in other.places], abs=1e-5)


def test_one_token_is_enough(model):
    found = lens_of(model, [50256], top=3)
    assert all(len(row.places) == 1 and len(row.top) == 3 for row in found.rows)
    assert found.target.id == found.rows[-1].top[0].id
