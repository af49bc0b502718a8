"""Lean linear layers against torch's own under autocast."""

import torch

from gpt2cli.data.batches import make_rows
from gpt2cli.training.bf16_linear import make_lean
from gpt2cli.training.loss import SequenceLoss
from tests import models
from tests.training.records import SHAPE, dataset


def gradients(model, dtype):
    model.zero_grad()
    [row] = make_rows(dataset(6), range(6), 1000, torch.device("cpu"))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = SequenceLoss(model)(row)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def test_in_fp32_they_are_the_plain_layers():
    model = models.small_model(SHAPE)
    loss, expected = gradients(model, torch.float32)
    make_lean(model, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # their path is taken, in fp32
        assert model.h[0].mlp.c_fc(torch.zeros(1, 1, 16)).dtype == torch.float32
    lean_loss, found = gradients(model, torch.float32)
    torch.testing.assert_close(lean_loss, loss)
    torch.testing.assert_close(found, expected)


def test_in_bf16_they_are_autocasts_layers():
    model = models.small_model(SHAPE)
    loss, expected = gradients(model, torch.bfloat16)
    make_lean(model, torch.bfloat16)
    lean_loss, found = gradients(model, torch.bfloat16)
    torch.testing.assert_close(lean_loss, loss, rtol=1e-3, atol=0)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 0.02 * gradient.norm() + 1e-6, name
        assert found[name].dtype == torch.float32


def test_without_autocast_they_compute_as_always():
    model = models.small_model(SHAPE)
    idx = torch.arange(10)[None]
    with torch.no_grad():
        expected = model(idx)
        make_lean(model, torch.bfloat16)
        torch.testing.assert_close(model(idx), expected)
