"""The memory of inference by the shape, compared with the arrays of a decoder."""

import pytest

from gpt2cli.config import GPTConfig
from gpt2cli.inference.decoder import PRECISIONS
from gpt2cli.inference.memory import cache_bytes_per_token, generating_bytes, weight_bytes
from tests import models

SHAPES = (
    GPTConfig(2, 3, 48, 37, 300),
    GPTConfig(1, 2, 64, 16, 1000, tied=False),
)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_and_cache_are_as_large_as_a_decoders(shape: GPTConfig, precision: str) -> None:
    decoder = models.packed(models.small_model(shape), precision)
    assert weight_bytes(shape, precision) == sum(array.nbytes for array in decoder._arrays.values())
    assert weight_bytes(shape, precision) > decoder.weight_bytes()
    assert 7 * cache_bytes_per_token(shape, precision) == decoder.new_cache(1, 7).nbytes


def test_memory_for_a_text_grows_with_its_tokens() -> None:
    shape = GPTConfig()
    short, long = (generating_bytes(shape, "fp16", tokens) for tokens in (100, 1024))
    assert long - short == 924 * cache_bytes_per_token(shape, "fp16")
    assert short > weight_bytes(shape, "fp16")
