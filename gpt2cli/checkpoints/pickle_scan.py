"""A check of the pickle in a file of torch.save, without running it.

torch's `weights_only` reader runs no foreign code, but a pickle of some kB can keep it busy for hours, or fill the
memory: keys that take exponential time to hash, copies of copies, tensors with a million dimensions. The scan follows
the instructions, with placeholders for tensors. It accepts only what a model, an optimizer and its schedule need.
"""

import io
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gpt2cli.checkpoints.limits import MAX_DIMENSIONS, MAX_NAME
from gpt2cli.untrusted import shown, shown_name

MAX_PICKLE = 8 * 2**20
"""Bytes of pickle that are read. The 1.5B model with the state of its optimizer takes 200 thousand."""
MAX_STEPS = 250_000
"""Instructions in it. The same model takes 70 thousand. Each instruction takes some microseconds."""

_TYPES = {
    f"torch.{name}"
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
        *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
}
STORAGES = {
    **{"torch.DoubleStorage": 8, "torch.FloatStorage": 4, "torch.HalfStorage": 2, "torch.BFloat16Storage": 2},
    **{"torch.LongStorage": 8, "torch.IntStorage": 4, "torch.ShortStorage": 2, "torch.CharStorage": 1},
    **{"torch.ByteStorage": 1, "torch.BoolStorage": 1, "torch.storage.UntypedStorage": 1},
    **{"torch.ComplexFloatStorage": 8, "torch.ComplexDoubleStorage": 16},
}
"""Classes of storages, and the bytes of each number in them."""
_REBUILD, _REBUILD_TYPED = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"
_PARAMETER, _ORDERED, _COUNTER = "torch._utils._rebuild_parameter", "collections.OrderedDict", "collections.Counter"
_SIZE, _DEVICE = "torch.Size", "torch.device"
_KNOWN = {*_TYPES, *STORAGES, _REBUILD, _REBUILD_TYPED, _PARAMETER, _ORDERED, _COUNTER, _SIZE, _DEVICE}


class PickleRefused(Exception):  # noqa: N818
    """The pickle is whole, but holds something that is not read. The message goes after the file's name."""


@dataclass(frozen=True)
class Scanned:
    """The result of a scan.

    end       the offset of the pickle's end
    storages  the storages of its tensors: the class of each, by its name
    value     the saved value, with placeholders
    """

    end: int
    storages: dict[str, str]
    value: Any


class _Placeholder(Enum):
    """A value that is not kept. SCALAR stands for a bool, a float, None, a device, a Counter or a long text."""

    SCALAR, STORAGE, TENSOR = range(3)


SCALAR, STORAGE, TENSOR = _Placeholder


class _Global(str):
    """The name of a function or class."""


def scan(pickle: bytes, start: int = 0) -> Scanned:
    """Scan the pickle that begins at `start`.

    Raises PickleRefused for a pickle that calls unknown functions, ValueError for any other that is not accepted.
    An accepted pickle takes time and memory in proportion to its length.
    """
    if len(pickle) > MAX_PICKLE:
        raise ValueError(f"a pickle of {len(pickle)} bytes, where at most {MAX_PICKLE} are read")
    try:
        return _Machine().run(pickle, start)
    except (LookupError, TypeError, UnicodeError) as error:
        raise ValueError(f"a broken pickle: {error}") from None


class _Machine:
    """The stack and the memo of the pickle module."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._below: list[list[Any]] = []  # stacks that wait for the end of a MARK
        self._latest_text = ""  # usually the name of the next tensor
        self._steps = 0
        self._storages: dict[str, str] = {}

    def run(self, pickle: bytes, start: int) -> Scanned:
        file = io.BytesIO(pickle)
        file.seek(start)
        instructions = pickletools.genops(file)
        while True:
            code = chr(pickle[file.tell()])  # checked before its argument is read: a decimal number can take hours
            if code not in _NAMES:
                raise ValueError(f"a pickle with the instruction {code!r}")
            self._take_steps(1)
            operation, argument, _ = next(instructions)
            if operation.name == "STOP":
                return Scanned(file.tell(), self._storages, self.stack.pop())
            _INSTRUCTIONS[operation.name](self, argument)

    def _take_steps(self, count: int) -> None:
        self._steps += count
        if self._steps > MAX_STEPS:
            raise ValueError(f"a pickle of more than {MAX_STEPS} instructions")

    def find_global(self, argument: str) -> None:
        name = argument.replace(" ", ".", 1)
        if name.startswith("torch._") and name not in _KNOWN:
            tensor = shown_name(self._latest_text)
            raise PickleRefused(
                f"cannot be read: {tensor} is no plain tensor (sparse, quantized or empty): save it as dense fp32"
            )
        if name not in _KNOWN:
            raise PickleRefused(
                f"holds a pickle that would run code, refused (it calls {shown_name(name)}): save its state dict alone"
            )
        self.stack.append(_Global(name))

    def push_text(self, text: str) -> None:
        self._latest_text = text
        self.stack.append(text if len(text) <= MAX_NAME else SCALAR)

    def mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._below.pop()
        return items

    def pop(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def push_tuple(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("a pickle that adds to something that is no list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Fill a dict. Nested tuples as keys would take exponential time to hash."""
        keys = items[::2]
        if len(items) % 2 or not all(type(key) is str or (type(key) is int and abs(key) < 2**32) for key in keys):
            raise ValueError("a dict whose keys are not short texts or whole numbers")
        if not isinstance(self.stack[-1], dict):
            raise ValueError("a pickle that adds to something that is no dict")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    def build(self) -> None:
        """Set attributes of an OrderedDict: torch sets `_metadata`."""
        state, target = self.stack.pop(), self.stack[-1]
        if not (type(target) is OrderedDict and type(state) is dict and len(state) <= MAX_DIMENSIONS):
            raise ValueError("a pickle that sets attributes")

    def find_storage(self) -> None:
        """A tensor's storage: ("storage", its class, the name of the file in the archive, the device, the length).

        Before version 1.6, a sixth part follows: None, or for a view of another storage a tuple, which is refused.
        """
        values = self.stack.pop()
        parts = (str, _Global, str, str, int)
        if not ((_are(values, *parts) or _are(values, *parts, SCALAR)) and values[1] in STORAGES):
            raise ValueError("a pickle that refers to something that is no storage")
        if self._storages.setdefault(values[2], values[1]) != values[1]:
            raise ValueError("a pickle that takes the same memory for numbers of two types")
        self.stack.append(STORAGE)

    def call(self) -> None:
        values, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Global:
            raise ValueError("a pickle that calls something that is no function")
        result: Any = SCALAR
        if function == _ORDERED and _are(values):
            result = OrderedDict()
        elif function == _COUNTER and _are(values, dict):
            self._take_steps(len(values[0]))  # to copy it
        elif _rebuilds_tensor(function, values):
            result = TENSOR
        elif function == _SIZE and _are(values, tuple) and _is_shape(values[0]):
            result = values[0]
        elif not (function == _DEVICE and (_are(values, str) or _are(values, str, int))):
            raise ValueError(f"a pickle that calls {shown(function)} with other values than torch.save does")
        self.stack.append(result)


def _are(values: Any, *kinds: object) -> bool:
    """Whether this is a tuple of values of these types, or of these placeholders themselves."""
    return (
        type(values) is tuple
        and len(values) == len(kinds)
        and all(kind is type(value) or kind is value for value, kind in zip(values, kinds, strict=True))
    )


def _is_shape(values: tuple[Any, ...]) -> bool:
    return len(values) <= MAX_DIMENSIONS and all(type(value) is int for value in values)


def _rebuilds_tensor(function: str, values: Any) -> bool:
    """Whether a function of torch that makes a tensor or a parameter gets the arguments that torch.save writes."""
    if function == _PARAMETER:  # tensor, requires_grad, hooks
        return _are(values, TENSOR, SCALAR, OrderedDict)
    # storage, offset, shape, strides, requires_grad, hooks, and perhaps a type
    parts = (STORAGE, int, tuple, tuple, SCALAR, OrderedDict)
    typed = function == _REBUILD_TYPED and _are(values, *parts, _Global) and values[6] in _TYPES
    return (typed or (function == _REBUILD and _are(values, *parts))) and _is_shape(values[2]) and _is_shape(values[3])


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, version: None,
    "GLOBAL": _Machine.find_global,
    "MARK": lambda m, _: m.mark(),
    "TUPLE": lambda m, _: m.push_tuple(m.pop_mark()),
    "TUPLE1": lambda m, _: m.push_tuple(m.pop(1)),
    "TUPLE2": lambda m, _: m.push_tuple(m.pop(2)),
    "TUPLE3": lambda m, _: m.push_tuple(m.pop(3)),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT"), lambda m, _: m.stack.append(SCALAR)),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), lambda m, number: m.stack.append(number)),
    "BINUNICODE": _Machine.push_text,
    "SHORT_BINSTRING": lambda m, text: m.push_text(text.encode("latin-1").decode(errors="surrogatepass")),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, number: m.memo.__setitem__(number, m.stack[-1])),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, number: m.stack.append(m.memo[number])),
    "BINPERSID": lambda m, _: m.find_storage(),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
}
_NAMES = {operation.code for operation in pickletools.opcodes if operation.name in {*_INSTRUCTIONS, "STOP"}}
