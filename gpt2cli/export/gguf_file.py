"""Writes a model as one file for llama.cpp, with the names and fields that llama.cpp's converter gives a GPT-2.

The gguf package writes the format; checkpoints/gguf_format.py reads it back.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from gpt2cli import tokenizer
from gpt2cli.checkpoints.gguf_format import ARCHITECTURE, BLOCK, TEMPLATE
from gpt2cli.checkpoints.rounding import check_rounding
from gpt2cli.config import GPTConfig
from gpt2cli.export.chat_template import as_jinja
from gpt2cli.export.from_ours import from_ours
from gpt2cli.prompts import PromptTemplate

if TYPE_CHECKING:
    from gguf import GGUFWriter


def write_gguf(
    path: Path, tensors: dict[str, Tensor], config: GPTConfig, dtype: str, name: str, template: PromptTemplate | None
) -> None:
    """Write weights (under our names) and the tokenizer.

    `dtype`, one of f32, f16, bf16 and q8_0, is the type of matrices. Vectors and positions are always in f32.
    Raises CheckpointError for weights that `dtype` cannot hold.
    """
    import gguf

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if dtype == "f32" else f"MOSTLY_{dtype.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, config.vocab_size)
    if template is not None:
        writer.add_chat_template(as_jinja(template))
        writer.add_string(TEMPLATE, json.dumps(template.to_dict()))
    for tensor_name, tensor in from_ours(tensors, "gguf").items():
        stored = _stored(tensor_name, tensor, dtype)
        kind = gguf.GGMLQuantizationType[stored.upper()]
        exact = tensor.float().contiguous().numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # check_rounding refuses these values
            array = gguf.quantize(exact, kind)
            if stored != "f32":
                check_rounding(tensor_name, exact, gguf.dequantize(array, kind), stored)
        writer.add_tensor(tensor_name, array, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except BaseException:
        with suppress(OSError):  # on a full disk, closing fails again, as it writes what is buffered
            writer.close()
        raise
    writer.close()


def _add_tokenizer(writer: "GGUFWriter", vocab_size: int) -> None:
    """Add the vocabulary. Rows of the table beyond it get names too, as llama.cpp needs a name for each row."""
    from gguf import TokenType

    tokens = tokenizer.vocabulary()
    spelled = sorted(tokens, key=tokens.__getitem__)
    paddings = [f"[PAD{number}]" for number in range(len(spelled), vocab_size)]
    kinds = [TokenType.NORMAL] * len(spelled) + [TokenType.UNUSED] * len(paddings)
    kinds[tokenizer.END_OF_TEXT_ID] = TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*spelled, *paddings])
    writer.add_token_types(kinds)
    writer.add_token_merges(tokenizer.merges())
    writer.add_bos_token_id(tokenizer.END_OF_TEXT_ID)
    writer.add_eos_token_id(tokenizer.END_OF_TEXT_ID)
    writer.add_add_bos_token(False)


def _stored(name: str, tensor: Tensor, dtype: str) -> str:
    """The type that a tensor is written in: llama.cpp's choice, as some of its kernels take no other type."""
    if tensor.dim() == 1 or name.startswith("position_embd"):
        return "f32"
    return "f16" if dtype == "q8_0" and tensor.shape[-1] % BLOCK else dtype
