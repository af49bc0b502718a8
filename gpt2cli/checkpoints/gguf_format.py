"""GGUF, llama.cpp's file format, read without trust: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

The gguf package, with which export/gguf_file.py writes it, is not made for untrusted files: it allocates any size
that a header gives. It also takes a second, because it makes an object of each of the vocabulary's 100,000 strings.
"""

import math
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from gpt2cli.checkpoints.headers import GGUF_MAGIC
from gpt2cli.checkpoints.lazy_arrays import LazyArray, derived, lazy
from gpt2cli.checkpoints.limits import MAX_DIMENSIONS, MAX_HEADER, MAX_NAME, MAX_TENSORS
from gpt2cli.checkpoints.mapped_files import Array, array_in, map_file
from gpt2cli.errors import CheckpointError
from gpt2cli.untrusted import shown, shown_name, shown_reason

ARCHITECTURE = "gpt2"
TEMPLATE = "gpt2cli.template"
"""The field that holds the prompt template, as JSON."""
BLOCK = 32
"""Weights that share a scale in q8_0."""
MAX_FIELDS = 1_000
"""Fields that are read. llama.cpp's converter writes about 30."""
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PLAIN: dict[int, np.dtype[Any]] = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float16),
    30: np.dtype(ml_dtypes.bfloat16),
}
_Q8_0 = 8
_FP32 = np.dtype(np.float32)
_BLOCK = np.dtype([("scale", np.float16), ("weights", np.int8, BLOCK)])
_GGML_TYPES = (
    "f32 f16 q4_0 q4_1 - - q5_0 q5_1 q8_0 q8_1 q2_K q3_K q4_K q5_K q6_K q8_K iq2_xxs iq2_xs iq3_xxs iq1_s iq4_nl iq3_s "
    "iq2_s iq4_xs i8 i16 i32 i64 f64 iq1_m bf16 - - - tq1_0 tq2_0 - - - mxfp4"
)
"""The names of ggml's types, in the order of their numbers."""
_TOKENS, _KIND = "tokenizer.ggml.tokens", "tokenizer.ggml.model"
_FIELDS = {
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_embd": "embedding_length",
    "n_positions": "context_length",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
}


def read_gguf(path: Path) -> tuple[dict[str, LazyArray], dict[str, Any]]:
    """A file's tensors under its own names, and its facts: the config, the tokenizer and our prompt template.

    Tensors of f32, f16 and bf16 are mapped into memory, those of q8_0 become fp32 when they are read. Raises
    CheckpointError for a file that is damaged, holds no GPT-2, or holds tensors of other types.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = _Header(file.read(MAX_HEADER))
    try:
        fields, described, start = header.read()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = shown_reason(error)
        raise CheckpointError(f"{path} is damaged: bad GGUF header ({reason}): fetch or export it again") from None
    architecture = fields.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise CheckpointError(f"{path} is a model of the kind {shown(architecture)}, not gpt2: use llama.cpp for it")
    sizes = {tensor.name: _byte_count(path, tensor) for tensor in described}
    end = start + max((tensor.offset + sizes[tensor.name] for tensor in described), default=0)
    if size < end:
        raise CheckpointError(f"{path} is truncated: {end} bytes expected, {size} found: fetch it again")
    if size > end + -end % header.alignment:
        raise CheckpointError(f"{path} is followed by other bytes: {end} expected, {size} found: fetch it again")
    if sum(sizes.values()) > size - start:  # q8_0 would be unpacked again and again
        raise CheckpointError(f"{path} is damaged: its tensors overlap: fetch or export it again")
    content, tensors = map_file(path), {}
    for tensor in described:
        begin = start + tensor.offset
        if tensor.kind in _PLAIN:
            tensors[tensor.name] = lazy(array_in(content, begin, tensor.shape, _PLAIN[tensor.kind]))
        else:
            blocks = lazy(array_in(content, begin, (sizes[tensor.name] // _BLOCK.itemsize,), _BLOCK))
            tensors[tensor.name] = derived(partial(_dequantize, tensor.shape), tensor.shape, _FP32, blocks)
    return tensors, _facts(fields)


@dataclass(frozen=True)
class GGUFTokenizer:
    """The kind of a file's tokenizer, and its tokens in the order of their ids, or None if there are none."""

    kind: Any
    tokens: list[str] | None


@dataclass(frozen=True)
class _Described:
    """A tensor as the header describes it: its ggml type `kind`, and its `offset` in the data, in bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class _Header:
    """The first bytes of a file, read one value after the other and never beyond their end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = len(GGUF_MAGIC)
        self.alignment = 32

    def read(self) -> tuple[dict[str, Any], list[_Described], int]:
        """The fields (arrays are None, except the list of tokens), the tensors, and where the data begins.

        Raises ValueError or LookupError for an invalid header.
        """
        version, n_tensors, n_fields = self._number("I"), self._number("Q"), self._number("Q")
        if version not in (2, 3):
            raise ValueError(f"version {version}, where 2 and 3 are known")
        if n_tensors > MAX_TENSORS or n_fields > MAX_FIELDS:
            raise ValueError(f"{n_tensors} tensors and {n_fields} fields")
        fields: dict[str, Any] = {}
        for _ in range(n_fields):
            name = self._text()
            if name in fields:
                raise ValueError("a name that comes twice")
            fields[name] = self._value(self._number("I"), keep_texts=name == _TOKENS)
        alignment = fields.get("general.alignment", self.alignment)
        if type(alignment) is not int or not 8 <= alignment <= 2**16 or alignment & (alignment - 1):
            raise ValueError(f"an alignment of {shown(alignment)}")
        self.alignment = alignment
        tensors = [self._tensor() for _ in range(n_tensors)]
        if len({tensor.name for tensor in tensors}) < n_tensors:
            raise ValueError("a name that comes twice")
        return fields, tensors, self._at + -self._at % alignment

    def _tensor(self) -> _Described:
        name, n_dimensions = self._text(), self._number("I")
        if len(name) > MAX_NAME or not 1 <= n_dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {n_dimensions} dimensions, with a name of {len(name)} characters")
        shape = tuple(self._number("Q") for _ in range(n_dimensions))[::-1]  # ggml's first is the innermost
        kind, offset = self._number("I"), self._number("Q")
        if 0 in shape or offset % self.alignment:
            raise ValueError("a tensor that is empty or misplaced")
        return _Described(name, shape, kind, offset)

    def _value(self, kind: int, keep_texts: bool) -> Any:
        """A field's value. It is None for an array, unless that is of texts and they are kept."""
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(_NUMBERS[kind])
        kind, length = self._number("I"), self._number("Q")
        if kind == _STRING and keep_texts:
            return [self._text("replace") for _ in range(length)]
        if kind == _STRING:
            for _ in range(length):
                self._skip(self._number("Q"))
        else:
            self._skip(length * struct.calcsize(_NUMBERS[kind]))
        return None

    def _number(self, code: str) -> Any:
        size = struct.calcsize(f"<{code}")
        self._skip(size)
        [value] = struct.unpack_from(f"<{code}", self._content, self._at - size)
        return value

    def _text(self, errors: str = "strict") -> str:
        length = self._number("Q")
        self._skip(length)
        return self._content[self._at - length : self._at].decode(errors=errors)

    def _skip(self, length: int) -> None:
        if length > len(self._content) - self._at:
            raise ValueError(f"{length} bytes from byte {self._at} on, where it ends")
        self._at += length


def _byte_count(path: Path, tensor: _Described) -> int:
    count = math.prod(tensor.shape)
    if tensor.kind in _PLAIN:
        return count * _PLAIN[tensor.kind].itemsize
    if tensor.kind == _Q8_0 and tensor.shape[-1] % BLOCK == 0:
        return count // BLOCK * _BLOCK.itemsize
    names = _GGML_TYPES.split()
    name = names[tensor.kind] if tensor.kind < len(names) else "unknown"
    raise CheckpointError(
        f"{path}: {shown_name(tensor.name)} is of ggml's type {tensor.kind} ({name}), and only f32, f16, bf16, and "
        f"q8_0 in blocks of {BLOCK} are read: convert the original model to one of these"
    )


def _dequantize(shape: tuple[int, ...], blocks: Array) -> Array:
    """The values of blocks of q8_0."""
    return (blocks["weights"] * blocks["scale"].astype(np.float32)[:, None]).reshape(shape)


def _facts(fields: dict[str, Any]) -> dict[str, Any]:
    config = {ours: fields.get(f"{ARCHITECTURE}.{theirs}") for ours, theirs in _FIELDS.items()}
    epsilon = config["layer_norm_epsilon"]
    if isinstance(epsilon, float):
        config["layer_norm_epsilon"] = float(f"{epsilon:.6g}")  # 1e-05, which is 9.9999997e-06 in fp32
    facts: dict[str, Any] = {"config": {name: value for name, value in config.items() if value is not None}}
    if _KIND in fields:
        tokens = fields.get(_TOKENS)
        facts["tokenizer"] = GGUFTokenizer(fields[_KIND], tokens if isinstance(tokens, list) else None)
    return facts | {"template": fields.get(TEMPLATE)}
