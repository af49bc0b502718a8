"""The names of a model's parts: read, written, and checked against a shape."""

import pytest

from gpt2cli.config import GPTConfig
from gpt2cli.errors import UsageError
from gpt2cli.model.part_names import MLP, Attention, Head, check_parts, heads_and_mlps, parse_parts

CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=48)


def test_names_are_read_in_order_and_each_once():
    parts = parse_parts("1.2, mlp.0", "attn.1,1.2")
    assert parts == (Head(1, 2), MLP(0), Attention(1))
    assert parse_parts(*map(str, parts)) == parts
    assert parse_parts("01.002") == (Head(1, 2),)


@pytest.mark.parametrize("text", ["", "9", "9.", ".6", "9.6.1", "mlp9", "mlp.", "MLP.3", "attn.1.bias", "-1.0", "٣.٠"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(UsageError, match=r"names no part of a model: write 9\.6"):
        parse_parts(f"0.0,{text}")


@pytest.mark.parametrize(
    ("name", "range"),
    [("2.0", "layers 0 to 1"), ("mlp.99", "layers 0 to 1"), ("attn.2", "layers 0 to 1"), ("1.3", "heads 0 to 2")],
)
def test_a_part_that_a_model_lacks_is_refused_with_the_range(name, range):
    with pytest.raises(UsageError, match=f"^{name} is not there: .* has {range}$"):
        check_parts(parse_parts(f"1.2,{name}"), CONFIG)


def test_a_model_of_one_layer_has_no_range():
    with pytest.raises(UsageError, match="this model has only layer 0"):
        check_parts([MLP(1)], GPTConfig(n_layer=1, n_head=1, n_embd=8))


def test_the_heads_and_mlps_of_a_model_are_its_own():
    parts = heads_and_mlps(CONFIG)
    assert [str(part) for part in parts] == ["0.0", "0.1", "0.2", "mlp.0", "1.0", "1.1", "1.2", "mlp.1"]
    check_parts(parts, CONFIG)


def test_a_name_in_capitals_has_a_guess():
    with pytest.raises(UsageError, match=r"did you mean mlp\.3\?"):
        parse_parts("MLP.3")
