"""A model as a directory in transformers' format: weights, config, tokenizer and card."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2cli import tokenizer
from gpt2cli.checkpoints.save import write_tensors
from gpt2cli.config import GPTConfig
from gpt2cli.export.cast import TORCH_TYPES, cast
from gpt2cli.export.formats import CARD
from gpt2cli.export.from_ours import from_ours
from gpt2cli.export.tokenizer_config import tokenizer_config
from gpt2cli.prompts import PromptTemplate


def write_folder(
    directory: Path,
    tensors: dict[str, Tensor],
    config: GPTConfig,
    dtype: str,
    template: PromptTemplate | None,
    card: str,
) -> None:
    """Fill an empty directory with the HUB_FILES of formats.py.

    tensors  under our names
    dtype    a name in TORCH_TYPES

    Raises CheckpointError for weights that `dtype` cannot hold.
    """
    theirs = from_ours(cast(tensors, dtype), "hub")
    header = {"format": "pt", "template": template.to_dict() if template else None}
    write_tensors(directory / "model.safetensors", theirs, header)
    end = {"bos_token_id": tokenizer.END_OF_TEXT_ID, "eos_token_id": tokenizer.END_OF_TEXT_ID}
    for name, content in (
        ("config.json", _model_config(config, dtype) | end),
        ("generation_config.json", end | {"pad_token_id": tokenizer.END_OF_TEXT_ID}),
        ("tokenizer.json", _tokenizer()),
        ("vocab.json", tokenizer.vocabulary()),  # with merges.txt, for readers older than tokenizer.json
        ("tokenizer_config.json", tokenizer_config(config.block_size, template)),
    ):
        (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *tokenizer.merges(), ""]), encoding="utf-8")
    (directory / CARD).write_text(card, encoding="utf-8")


def _model_config(config: GPTConfig, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,  # the same, for readers that know the older name
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": config.tied,
        "dtype": str(TORCH_TYPES[dtype]).removeprefix("torch."),
    }


def _tokenizer() -> dict[str, Any]:
    """GPT-2's byte-pair encoding in the format of the tokenizers library."""
    bytes_as_characters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end_of_text = {"id": tokenizer.END_OF_TEXT_ID, "content": tokenizer.END_OF_TEXT, "special": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end_of_text | plain],
        "normalizer": None,
        "pre_tokenizer": bytes_as_characters,
        "post_processor": None,
        "decoder": bytes_as_characters,
        "model": {"type": "BPE", "vocab": tokenizer.vocabulary(), "merges": tokenizer.merges()},
    }
