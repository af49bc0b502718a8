"""A decoder is chosen and made without torch where it needs none; a plain model is run as one."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import gpt2cli
from gpt2cli.config import SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.inference.decoder import as_decoder, check_graphs, pick_precision
from gpt2cli.inference.torch_decoder import TorchDecoder
from tests import models

GREEDY = SamplingConfig(max_new_tokens=5, temperature=0)


def test_what_generates_text_imports_no_torch():
    names = ("generation.text", "generation.conversation", "inference.decoder", "inference.cpu.cache", "bench")
    code = f"import sys, {', '.join('gpt2cli.' + name for name in names)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "torch" not in set(done.stdout.split()), done.stderr
    assert "gpt2cli.bench" in done.stdout.split(), done.stderr


def test_a_decoder_is_its_own_and_a_plain_model_gets_one():
    model, packed = models.small_model(), models.tiny("fp32")
    assert as_decoder(packed) is packed
    decoder = as_decoder(model)
    assert isinstance(decoder, TorchDecoder) and decoder.gpt is model
    assert as_decoder(decoder) is decoder
    assert gpt2cli.generate(model, "One", GREEDY) == gpt2cli.generate(decoder, "One", GREEDY)


def test_both_kinds_give_numpy_logits_for_nested_lists(tmp_path):
    idx, model = [[1, 2, 3], [4, 5, 6]], models.small_model()
    directory = str(models.save_hub_directory(model, tmp_path))
    with torch.no_grad():
        expected = model(torch.tensor(idx)).numpy()
    for decoder in (TorchDecoder(model), gpt2cli.load(directory, device="cpu", precision="fp32")):
        logits = decoder(idx)
        assert isinstance(logits, np.ndarray) and logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_training_goes_on_after_a_text():
    """What inference leaves behind, such as tensors that autograd refuses, must not reach the model."""
    model = models.small_model().train()
    gpt2cli.generate(model, "One", GREEDY)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_graphs_are_for_cuda():
    check_graphs("cuda:1")
    with pytest.raises(UsageError, match="--compile needs a CUDA device, not mps"):
        check_graphs("mps")


def test_auto_without_loops_and_cuda_is_fp32():
    assert [pick_precision(device) for device in ("cpu", "mps")] == ["fp32", "fp32"]
