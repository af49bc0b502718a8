"""Passes: the parts add up to the stream, edits do what they say, and transformers has the same hidden states."""

from dataclasses import replace

import pytest
import torch

from gpt2cli.errors import CheckpointError, DivergedError, UsageError
from gpt2cli.insight.passes import NO_EDITS, Site, logits, run_blocks, trace
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from tests import models


def everywhere(model, edit, *sites):
    return {(layer, site): edit for layer in range(model.config.n_layer) for site in sites}


@torch.no_grad()
def test_the_trace_ends_in_the_models_logits_to_the_bit(model, ids):
    idx = torch.tensor([ids])
    assert torch.equal(logits(model, trace(model, idx).final), model(idx))


def test_embeddings_and_all_parts_add_up_to_the_residual_stream(model, ids):
    found = trace(model, torch.tensor([ids]))
    total = found.embedding + found.position + sum(found.attention) + sum(found.mlp)
    torch.testing.assert_close(total, found.final, atol=1e-5, rtol=1e-5)
    streams = found.streams()
    assert len(streams) == 2 * model.config.n_layer + 1
    assert torch.equal(streams[-1], found.final)


@torch.no_grad()
def test_heads_and_bias_add_up_to_the_attentions_output(model, ids):
    found, size = trace(model, torch.tensor([ids])), model.config.n_embd // model.config.n_head
    for block, mixes, attention in zip(model.h, found.mixes, found.attention, strict=True):
        output = block.attn.c_proj
        total = output.bias.clone().expand_as(attention)
        for head in range(model.config.n_head):
            total = total + mixes[:, head] @ output.weight[:, head * size : (head + 1) * size].t()
        torch.testing.assert_close(total, attention, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_text_that_is_added_changes_nothing_that_a_part_computes_before_it(model, ids):
    whole, prefix = (trace(model, torch.tensor([tokens])) for tokens in (ids, ids[:8]))
    for name in ("mixes", "attention", "mlp"):
        for of_whole, of_prefix in zip(getattr(whole, name), getattr(prefix, name), strict=True):
            torch.testing.assert_close(of_whole[..., :8, :], of_prefix, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.final[:, :8], prefix.final, atol=1e-5, rtol=1e-5)


def test_streams_can_be_taken_at_some_places(model, ids):
    found = trace(model, torch.tensor([ids]))
    for places in (slice(3, 7), slice(-1, None)):
        expected = [stream[:, places] for stream in found.streams()]
        assert all(map(torch.equal, found.streams(places), expected))


@torch.no_grad()
def test_rows_that_pad_the_vocabulary_are_no_tokens(ids):
    model = models.small_model(replace(models.SMALL, vocab_size=50304))
    model.wte.weight[50257:] *= 100
    idx = torch.tensor([ids])
    assert int(model(idx)[0, -1].argmax()) >= 50257
    found = logits(model, trace(model, idx).final)
    assert torch.equal(found, model(idx)[..., :50257])
    subject = Subject(model, Question(tuple(ids)))
    assert subject.target == int(found[0, -1].argmax())
    with pytest.raises(CheckpointError, match="token 50300 is not among the 50257"):
        Subject(model, Question(tuple(ids), target=50300))


def test_edits_that_change_nothing_are_the_identity(model, ids):
    idx = torch.tensor([ids])
    unchanged = trace(model, idx, everywhere(model, lambda value: value, *Site))
    assert torch.equal(unchanged.final, trace(model, idx).final)


def test_without_any_part_the_embeddings_are_left(model, ids):
    found = trace(model, torch.tensor([ids]), everywhere(model, torch.zeros_like, Site.ATTENTION, Site.MLP))
    assert all(torch.equal(stream, found.embedding + found.position) for stream in found.streams())


def test_an_edit_of_the_heads_changes_what_the_output_matrix_reads(model, ids):
    found = trace(model, torch.tensor([ids]), everywhere(model, torch.zeros_like, Site.HEADS))
    for block, mixes, attention in zip(model.h, found.mixes, found.attention, strict=True):
        assert not mixes.any()
        torch.testing.assert_close(attention, block.attn.c_proj.bias.expand_as(attention))


@torch.no_grad()
def test_a_pass_can_begin_at_any_block(model, ids):
    found = trace(model, torch.tensor([ids]))
    for first, stream in enumerate(found.streams()[::2]):
        assert torch.equal(run_blocks(model, stream, first=first), found.final)


def test_an_edit_of_the_stream_replaces_what_the_block_reads(model, ids):
    last = model.config.n_layer - 1
    idx, other = torch.tensor([ids]), torch.tensor([ids[::-1]])
    edited = trace(model, idx, {(last, Site.STREAM): lambda stream: trace(model, other).streams()[2 * last]})
    assert torch.equal(edited.final, trace(model, other).final)


@torch.no_grad()
def test_hidden_states_equal_transformers(model, ids, tmp_path):
    from transformers import GPT2LMHeadModel

    peer = GPT2LMHeadModel.from_pretrained(models.save_hub_directory(model, tmp_path), attn_implementation="eager")
    idx = torch.tensor([ids])
    theirs = peer.eval()(idx, output_hidden_states=True).hidden_states
    found = trace(model, idx)
    streams = found.streams()[::2]
    for ours, their in zip(streams[:-1], theirs[:-1], strict=True):
        torch.testing.assert_close(ours, their, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.ln_f(found.final), theirs[-1], atol=1e-5, rtol=1e-5)  # after the last norm


def test_numbers_that_are_not_finite_are_an_error(ids):
    model = models.small_model()
    with torch.no_grad():
        model.h[1].mlp.c_proj.bias[3] = float("inf")
    with pytest.raises(DivergedError, match="not finite: check the checkpoint"):
        trace(model, torch.tensor([ids]))


def test_a_prompt_longer_than_the_window_is_refused():
    model = models.small_model()
    with pytest.raises(UsageError, match="38"):
        trace(model, torch.zeros(1, 38, dtype=torch.long), NO_EDITS)
