"""The kinds of values in a pickle of torch.save, and the calls that it makes to rebuild them.

The kind of a tuple is the tuple of its members' kinds, that of a list or a dict a Collection, that of a short text a
Text, that of a function or class its name, and that of any other value one of the words below.
"""

from dataclasses import dataclass, field
from typing import Any

from gpt2cli.checkpoints.limits import MAX_DIMENSIONS


@dataclass
class Collection:
    """A list or a dict. Only its size is known."""

    kind: str
    size: int = 0


@dataclass(frozen=True)
class Text:
    """A short text, such as the name of a tensor or of its memory."""

    value: str


INT, LONG_INT, TEXT, LONG_TEXT = "int", "long int", "text", "long text"
SCALAR, STORAGE, TENSOR = "scalar", "storage", "tensor"
TYPES = tuple(
    f"torch.{name}"
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
        *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
)
_SIZES = {
    **{"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "ComplexFloat": 8, "ComplexDouble": 16},
    **{"Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1, "storage.Untyped": 1},
}
STORAGES = {f"torch.{name}Storage": size for name, size in _SIZES.items()}
"""Classes of storages, and the bytes of each number in them."""
REBUILD, REBUILD_TYPED = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"
PARAMETER, ORDERED, COUNTER, SIZE, DEVICE = (
    "torch._utils._rebuild_parameter", "collections.OrderedDict", "collections.Counter", "torch.Size", "torch.device",
)  # fmt: skip
KNOWN = {*TYPES, *STORAGES, REBUILD, REBUILD_TYPED, PARAMETER, ORDERED, COUNTER, SIZE, DEVICE}


def is_collection(value: Any, kind: str) -> bool:
    return isinstance(value, Collection) and value.kind == kind


def are(kinds: Any, wanted: tuple[str | None, ...]) -> bool:
    """Whether this is a tuple of such kinds, None standing for any."""
    return (
        isinstance(kinds, tuple)
        and len(kinds) == len(wanted)
        and all(want in (None, _word(kind)) for kind, want in zip(kinds, wanted, strict=True))
    )


def _word(kind: Any) -> Any:
    return TEXT if isinstance(kind, Text) else INT if kind == LONG_INT else kind


def is_shape(kinds: Any) -> bool:
    return isinstance(kinds, tuple) and len(kinds) <= MAX_DIMENSIONS and all(kind in (INT, LONG_INT) for kind in kinds)


def rebuilds_tensor(function: Any, kinds: Any) -> bool:
    """Whether a function of torch is called with a storage, offset, sizes, strides, requires_grad, hooks, and a type.

    Or, for a parameter, with a tensor, requires_grad, and hooks.
    """
    if function == PARAMETER:
        return are(kinds, (TENSOR, SCALAR, None)) and is_collection(kinds[2], ORDERED)
    typed = function == REBUILD_TYPED
    wanted = (STORAGE, INT, None, None, SCALAR, None) + ((None,) if typed else ())
    return (
        function in (REBUILD, REBUILD_TYPED)
        and are(kinds, wanted)
        and is_shape(kinds[2])
        and is_shape(kinds[3])
        and is_collection(kinds[5], ORDERED)
        and (not typed or kinds[6] in TYPES)
    )


@dataclass
class Scanned:
    """The result of a scan.

    end       the offset of the pickle's end
    storages  the storages of its tensors: the class of each, by its name
    texts     the short texts in it, in order
    value     the kind of what is saved
    """

    end: int = 0
    storages: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    value: Any = None

    @property
    def names(self) -> list[str] | None:
        """The texts, if what is saved is a list of different ones and nothing else."""
        alone = is_collection(self.value, "list") and self.value.size == len(self.texts) == len(set(self.texts))
        return self.texts if alone else None
