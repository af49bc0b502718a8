"""The loss in chunks against the plain one, rows of sequences against sequences alone."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from gpt2cli.config import DataConfig, GPTConfig
from gpt2cli.data.batches import make_rows
from gpt2cli.data.tokenized_records import tokenize_records
from gpt2cli.exchanges import prompt_ids
from gpt2cli.prompts import ALPACA
from gpt2cli.tokenizer import END_OF_TEXT_ID, encode_plain
from gpt2cli.training import loss as loss_module
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.loss import SequenceLoss, softmax_gradient, summed_cross_entropy
from gpt2cli.training.validation import mean_loss
from tests import models
from tests.data.records import as_read, conversation
from tests.training.records import SHAPE, alike, conversations, dataset

CPU = torch.device("cpu")


@pytest.mark.parametrize("n", [1, 7, 8, 9, 40])
def test_chunks_give_the_plain_loss_and_gradients(monkeypatch, n):
    monkeypatch.setattr(loss_module, "LOGIT_ROWS", {"cpu": 8})
    monkeypatch.setattr(loss_module, "HEAD_ROWS", 13)
    torch.manual_seed(n)
    hidden, head = torch.randn(n, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(50, (n,))
    plain = F.cross_entropy(hidden @ head.t(), targets, reduction="sum")
    expected = torch.autograd.grad(plain * 0.3, (hidden, head))
    ours = summed_cross_entropy(hidden, head, targets)
    found = torch.autograd.grad(ours * 0.3, (hidden, head))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(found, expected)


def test_rows_added_to_the_head_change_nothing(monkeypatch):
    hidden, head = torch.randn(9, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(50, (9,))
    expected = summed_cross_entropy(hidden, head, targets)
    gradients = torch.autograd.grad(expected, (hidden, head))
    padded = loss_module.aligned(head.detach(), head.dtype)
    assert padded.shape == (128, 16)
    monkeypatch.setattr(loss_module, "head_portions", lambda _: [(0, padded)])
    found = summed_cross_entropy(hidden, head, targets)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, (hidden, head)), gradients)


def test_the_gradient_that_compiles_into_one_kernel_is_the_same():
    logits, targets = torch.randn(9, 50) * 3, torch.randint(50, (9,))
    torch.testing.assert_close(loss_module.fusible_softmax_gradient(logits, targets), softmax_gradient(logits, targets))


def test_without_gradients_none_are_worked_out(monkeypatch):
    head = torch.randn(50, 16, requires_grad=True)
    monkeypatch.setattr(torch, "empty_like", lambda tensor: pytest.fail("memory for a gradient"))
    with torch.no_grad():
        assert summed_cross_entropy(torch.randn(3, 16), head, torch.tensor([1, 2, 3])) > 0


def test_in_bf16_it_is_the_plain_loss_to_bf16s_precision():
    torch.manual_seed(0)
    hidden, head = torch.randn(300, 64), torch.randn(500, 64) * 0.3
    targets = torch.randint(500, (300,))
    plain = F.cross_entropy(hidden @ head.t(), targets, reduction="sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = summed_cross_entropy(hidden, head, targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain, rtol=2e-3, atol=0)


def plain_loss(model, data):
    """Every record alone, all logits, torch's own cross-entropy."""
    total = torch.zeros(())
    for i in range(len(data)):
        ids, is_target = data[i]
        logits = model(ids[None, :-1])[0, is_target[1:]]
        total = total + F.cross_entropy(logits, ids[is_target], reduction="sum")
    return total


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("make_data", [dataset, alike, conversations])
def test_loss_and_gradients_of_packed_rows_equal_the_plain_path(max_tokens, tied, make_data):
    shape = type(SHAPE)(**{**SHAPE.__dict__, "tied": tied})
    model, data = models.small_model(shape), make_data(12)
    plain_loss(model, data).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    rows = make_rows(data, range(len(data)), max_tokens, CPU)
    losses = [SequenceLoss(model)(row) for row in rows]
    sum(losses).backward()
    torch.testing.assert_close(sum(losses), plain_loss(model, data), rtol=1e-5, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_common_beginning_is_read_once():
    data = alike(12)
    rows = make_rows(data, range(13), 10_000, CPU)
    assert [row.sight.prefixes.count(None) for row in rows] == [3]
    assert sum(row.idx.shape[1] for row in rows) == data.n_tokens - 13 - 5 * (18 + 21)
    assert sum(len(row.targets) for row in rows) == data.n_targets


@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_a_conversation_learns_what_its_turns_would_learn_one_by_one(max_tokens):
    model = models.small_model(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=256))
    records = [
        conversation("Hi.", "Hello!", "Who are you?", "A fox.", "Why?", "I was born so."),
        conversation("Hi.", "Hello!", "Where are you?", "In the wood."),
        conversation("Count.", "1 2 3", system="You count."),
    ]
    total = torch.zeros(())
    for record in records:
        for k, asked in enumerate(record.exchanges):
            before = prompt_ids(ALPACA.with_system(record.system), record.exchanges[:k], asked)
            answer = torch.tensor([*encode_plain(asked.output), END_OF_TEXT_ID])
            logits = model(torch.cat([torch.tensor(before), answer[:-1]])[None])[0, len(before) - 1 :]
            total = total + F.cross_entropy(logits, answer, reduction="sum")
    total.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    data = tokenize_records(as_read(*records), Path("a.json"), 256, "response", DataConfig()).dataset
    losses = [SequenceLoss(model)(row) for row in make_rows(data, range(3), max_tokens, CPU)]
    sum(losses).backward()
    torch.testing.assert_close(sum(losses), total, rtol=1e-5, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_conversations_that_begin_alike_share_their_first_prompt():
    data = conversations(6)
    [row] = make_rows(data, range(6), 10_000, CPU)
    shared = [int(data.first_targets[i]) - 1 for i in (0, 2, 4)]
    assert row.idx.shape[1] == data.n_tokens - 6 - sum(shared)
    assert row.targets.tolist() == [token for i in row.records for token in data[i][0][data[i][1]].tolist()]
    assert len(row.places) == data.n_targets


def test_recomputing_blocks_changes_nothing():
    model, data = models.small_model(SHAPE).train(), dataset(6)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(1)
        model.zero_grad()
        for row in make_rows(data, range(6), 1000, CPU):
            SequenceLoss(model, recompute=recompute)(row).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


def test_mean_loss_weighs_every_token_alike():
    from contextlib import nullcontext

    model, data = models.small_model(SHAPE), dataset(10)
    with torch.no_grad():
        expected = float(plain_loss(model, data)) / data.n_targets
    for max_tokens in (1, 30, 1000):
        assert mean_loss(model, data, max_tokens, nullcontext(), Ranks()) == pytest.approx(expected, rel=1e-5)
