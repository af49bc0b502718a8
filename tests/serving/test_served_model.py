"""What a server says about its model."""

import json
from dataclasses import replace

import pytest
import torch

from gpt2cli.config import CHAT, GPTConfig, SamplingConfig
from gpt2cli.errors import CheckpointError, DivergedError
from gpt2cli.inference.decoder import as_decoder
from gpt2cli.model.gpt import GPT
from gpt2cli.model.origin import Origin
from gpt2cli.prompts import ALPACA, SEED
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.served_model import ServedModel, served_model
from tests.models import packed, small_model

WIDE = GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=37)
"""Wide enough for int4."""


def fingerprint(model: GPT, precision: str = "fp32", threads: int | None = None) -> str:
    return served_model(packed(model, precision, threads), "a").fingerprint


def described(**origin: object) -> ServedModel:
    model = small_model()
    model.origin = Origin(**origin)  # type: ignore[arg-type]
    return served_model(as_decoder(model), "owner/name")


def test_the_fingerprint_is_the_same_for_the_same_weights() -> None:
    assert fingerprint(small_model()) == fingerprint(small_model()) == fingerprint(small_model(), threads=1)
    assert fingerprint(small_model()).startswith("fp_")


def test_the_fingerprint_differs_between_precisions() -> None:
    precisions = ("fp32", "bf16", "fp16", "int8", "int4")
    assert len({fingerprint(small_model(WIDE), precision) for precision in precisions}) == len(precisions)


@pytest.mark.parametrize("name", [name for name, _ in small_model().named_parameters()])
def test_the_fingerprint_depends_on_every_parameter(name: str) -> None:
    model = small_model()
    parameter = model.get_parameter(name)
    parts = parameter.chunk(3) if "c_attn" in name else [parameter]  # queries, keys and values
    for number, part in enumerate(parts):
        with torch.no_grad():
            part[0] += 0.5
            changed = fingerprint(model)
            part[0] -= 0.5
        is_bias_of_keys = name.endswith("c_attn.bias") and number == 1  # it adds the same to all scores of a query
        assert is_bias_of_keys or changed != fingerprint(small_model())


def test_the_entry_of_a_model() -> None:
    entry = described(template=SEED.to_dict()).as_dict()
    assert {"id": "owner/name", "object": "model", "owned_by": "gpt2cli"}.items() <= entry.items()
    assert type(entry["created"]) is int
    assert (entry["max_model_len"], entry["precision"], entry["device"]) == (37, "fp32", "cpu")
    assert json.loads(json.dumps(entry)) == entry


def test_the_defaults_are_those_of_the_commands() -> None:
    defaults = described().as_dict()["defaults"]
    for name, sampling in (("completions", SamplingConfig()), ("chat", CHAT)):
        given = {name: value for name, value in defaults[name].items() if name != "max_tokens"}
        assert replace(SamplingConfig(), max_new_tokens=defaults[name]["max_tokens"], **given) == sampling


def test_how_chats_are_prompted() -> None:
    assert described(template=SEED.to_dict()).as_dict()["prompt_template"] == "the checkpoint's"
    assumed = described()
    assert assumed.template == ALPACA
    assert assumed.as_dict()["prompt_template"] == "Alpaca's, because the checkpoint has none"
    plain = described(is_plain_text=True)
    assert plain.template is None
    assert plain.as_dict()["prompt_template"] == "none: the model continues the conversation"


def test_a_model_for_another_tokenizer_is_not_served() -> None:
    with pytest.raises(CheckpointError, match="another tokenizer"):
        described(other_tokenizer="its vocabulary is vocab.txt")


def test_a_model_whose_logits_are_not_finite_is_not_served() -> None:
    model = small_model()
    model.ln_f.weight.data[0] = torch.nan
    with pytest.raises(DivergedError, match="not finite"):
        served_model(as_decoder(model), "small")


def test_another_name_is_not_found() -> None:
    model = described()
    model.check_name("owner/name")
    for name in ("", "name", "owner/nam", "x" * 1000, "\ud800"):
        with pytest.raises(RefusedError) as caught:
            model.check_name(name)
        assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "model_not_found")
        assert len(json.dumps(caught.value.as_dict(), ensure_ascii=False).encode()) < 500
