"""Attention probabilities: what they are made of, and those of transformers."""

import pytest
import torch

from gpt2cli.insight.watched import Watched
from gpt2cli.model.gpt import Causal
from tests import models


@torch.no_grad()
def watched(model, idx):
    found = {}
    model.hidden(idx, Watched(found.__setitem__))
    assert list(found) == list(range(model.config.n_layer))
    return list(found.values())


def test_rows_add_up_to_1_and_nothing_is_above_the_diagonal(model, ids):
    for weights in watched(model, torch.tensor([ids])):
        assert weights.shape == (1, model.config.n_head, len(ids), len(ids))
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:3]))
        assert not weights.triu(1).any()
        assert (weights >= 0).all()


def test_the_output_is_that_of_the_models_attention():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 11, 8, generator=generator) for _ in range(3))
    ours, models_own = Watched(lambda layer, weights: None).attend(0, q, k, v, 0.0), Causal().attend(0, q, k, v, 0.0)
    torch.testing.assert_close(ours, models_own, atol=1e-6, rtol=1e-5)


def test_without_queries_and_keys_each_token_reads_all_before_it_alike(ids):
    model = models.small_model()
    with torch.no_grad():
        for block in model.h:
            block.attn.c_attn.weight[:96] = 0
            block.attn.c_attn.bias[:96] = 0
    expected = torch.ones(20, 20).tril() / torch.arange(1, 21)[:, None]
    for weights in watched(model, torch.tensor([ids])):
        torch.testing.assert_close(weights, expected.expand_as(weights))


@torch.no_grad()
def test_attentions_equal_transformers(model, ids, tmp_path):
    from transformers import GPT2LMHeadModel

    peer = GPT2LMHeadModel.from_pretrained(models.save_hub_directory(model, tmp_path), attn_implementation="eager")
    idx = torch.tensor([ids])
    theirs = peer.eval()(idx, output_attentions=True).attentions
    for ours, their in zip(watched(model, idx), theirs, strict=True):
        torch.testing.assert_close(ours, their, atol=1e-5, rtol=0)


def test_a_model_in_training_mode_is_refused():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="training mode"):
        Watched(lambda layer, weights: None).attend(0, q, q, q, 0.1)
