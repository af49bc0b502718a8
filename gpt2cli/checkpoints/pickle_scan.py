"""A check of the pickle in a file of torch.save, without running it.

torch's own `weights_only` reader runs no foreign code, but a pickle of some kB can keep it busy for hours, or fill the
memory: keys that take exponential time to hash, copies of copies, tensors with a million dimensions. Here the pickle
machine runs on the kinds of the values alone, and accepts only what the state of a model, of an optimizer and
of its schedule needs.
"""

from collections.abc import Callable
from typing import Any

from gpt2cli.checkpoints.limits import MAX_DIMENSIONS, MAX_NAME
from gpt2cli.checkpoints.pickle_kinds import (
    COUNTER,
    DEVICE,
    INT,
    KNOWN,
    LONG_INT,
    LONG_TEXT,
    ORDERED,
    SCALAR,
    SIZE,
    STORAGE,
    STORAGES,
    TENSOR,
    TEXT,
    Collection,
    Scanned,
    Text,
    are,
    is_collection,
    is_shape,
    rebuilds_tensor,
)
from gpt2cli.untrusted import shown, shown_name

MAX_PICKLE = 8 * 2**20
"""Bytes of pickle that are read. The 1.5B model with the state of its optimizer takes 200 thousand."""
MAX_STEPS = 250_000
"""Instructions in it. The same model takes 70 thousand. Each instruction takes some microseconds."""


class PickleRefused(Exception):  # noqa: N818
    """The pickle is whole, but holds something that is not read. The message goes after the file's name."""


def scan(pickle: bytes, start: int = 0) -> Scanned:
    """Scan the pickle that begins at `start`.

    Raises PickleRefused for a pickle that calls unknown functions, ValueError for any other that is not accepted.
    An accepted pickle takes time and memory in proportion to its length.
    """
    if len(pickle) > MAX_PICKLE:
        raise ValueError(f"a pickle of {len(pickle)} bytes, where at most {MAX_PICKLE} are read")
    try:
        return _Machine(pickle, start).run()
    except (LookupError, TypeError, UnicodeError) as error:
        raise ValueError(f"a broken pickle: {error}") from None


class _Machine:
    """The stack and the memo, as in the pickle module, with kinds in place of values."""

    def __init__(self, pickle: bytes, start: int) -> None:
        self._pickle = pickle
        self._at = start
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks that wait for the end of a MARK
        self._memo: dict[int, Any] = {}
        self._latest_text = ""  # the name of the tensor that comes next, as a rule
        self._steps = 0
        self._found = Scanned()

    def run(self) -> Scanned:
        while True:
            code = self._read(1)
            if code == b".":  # STOP
                self._found.end, self._found.value = self._at, self._stack.pop()
                return self._found
            if code not in _INSTRUCTIONS:
                raise ValueError(f"a pickle with the instruction {code!r}")
            self._take_steps(1)
            _INSTRUCTIONS[code](self)

    def _take_steps(self, count: int) -> None:
        self._steps += count
        if self._steps > MAX_STEPS:
            raise ValueError(f"a pickle of more than {MAX_STEPS} instructions")

    def _read(self, length: int) -> bytes:
        found = self._pickle[self._at : self._at + length]
        if len(found) < length:
            raise ValueError("a pickle that is cut short")
        self._at += length
        return found

    def _number(self, length: int) -> int:
        return int.from_bytes(self._read(length), "little")

    def _line(self) -> str:
        end = self._pickle.index(b"\n", self._at)
        line = self._read(end - self._at).decode()
        self._at += 1
        return line

    def _global(self) -> None:
        name = f"{self._line()}.{self._line()}"
        if name.startswith("torch._") and name not in KNOWN:
            tensor = shown_name(self._latest_text)
            raise PickleRefused(
                f"cannot be read: {tensor} is no plain tensor (sparse, quantized or empty): save it as dense fp32"
            )
        if name not in KNOWN:
            raise PickleRefused(
                f"holds a pickle that would run code, refused (it calls {shown_name(name)}): save its state dict alone"
            )
        self._stack.append(name)

    def _text(self, length_bytes: int) -> None:
        text = self._read(self._number(length_bytes))
        self._latest_text = text[:MAX_NAME].decode(errors="replace")
        if len(text) > MAX_NAME:
            self._stack.append(LONG_TEXT)
        else:
            self._stack.append(Text(text.decode(errors="surrogatepass")))
            self._found.texts.append(self._stack[-1].value)

    def _skip(self, length: int, kind: str) -> None:
        self._read(length)
        self._stack.append(kind)

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _tuple(self, length: int | None) -> None:
        items = self._pop_mark() if length is None else [self._stack.pop() for _ in range(length)][::-1]
        self._stack.append(tuple(items))

    def _add(self, items: list[Any], kinds: tuple[str, ...]) -> None:
        collection = self._stack[-1]
        if not isinstance(collection, Collection) or collection.kind not in kinds:
            raise ValueError("a pickle that adds to something that is no collection")
        collection.size += len(items)

    def _append(self, items: list[Any]) -> None:
        self._add(items, ("list",))

    def _set_items(self, items: list[Any]) -> None:
        if len(items) % 2 or any(not (isinstance(key, Text) or key == INT) for key in items[::2]):
            raise ValueError("a dict whose keys are not short texts or whole numbers")
        self._add(items, ("dict", ORDERED))

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _build(self) -> None:
        """Set attributes of an OrderedDict: torch sets `_metadata`."""
        state, target = self._stack.pop(), self._stack[-1]
        if not (is_collection(target, ORDERED) and is_collection(state, "dict") and state.size <= MAX_DIMENSIONS):
            raise ValueError("a pickle that sets attributes")

    def _persistent(self) -> None:
        """A tensor's storage: ("storage", its class, the name of the file in the archive, the device, the length).

        Before version 1.6, a sixth part follows: None, or for a view of another storage a tuple, which is refused.
        """
        kinds = self._stack.pop()
        shapes = ((TEXT, None, TEXT, TEXT, INT), (TEXT, None, TEXT, TEXT, INT, SCALAR))
        # nested tuples take exponential time to hash, and deeply nested ones too much of the stack
        if not (any(are(kinds, shape) for shape in shapes) and isinstance(kinds[1], str) and kinds[1] in STORAGES):
            raise ValueError("a pickle that refers to something that is no storage")
        name = kinds[2].value
        if self._found.storages.setdefault(name, kinds[1]) != kinds[1]:
            raise ValueError("a pickle that takes the same memory for numbers of two types")
        self._stack.append(STORAGE)

    def _reduce(self) -> None:
        kinds, function = self._stack.pop(), self._stack.pop()
        result: Any
        if function == ORDERED and kinds == ():
            result = Collection(ORDERED)
        elif function == COUNTER and are(kinds, (None,)) and is_collection(kinds[0], "dict"):
            self._take_steps(kinds[0].size)  # to copy it
            result = SCALAR
        elif rebuilds_tensor(function, kinds):
            result = TENSOR
        elif function == SIZE and are(kinds, (None,)) and is_shape(kinds[0]):
            result = kinds[0]
        elif function == DEVICE and (are(kinds, (TEXT,)) or are(kinds, (TEXT, INT))):
            result = SCALAR
        else:
            raise ValueError(f"a pickle that calls {shown(function)} with other values than torch.save does")
        self._stack.append(result)


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], object]] = {
    b"\x80": lambda m: m._read(1),  # PROTO
    b"c": _Machine._global,
    b"(": _Machine._mark,
    b")": lambda m: m._stack.append(()),
    b"t": lambda m: m._tuple(None),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"]": lambda m: m._stack.append(Collection("list")),
    b"}": lambda m: m._stack.append(Collection("dict")),
    b"a": lambda m: m._append([m._stack.pop()]),
    b"e": lambda m: m._append(m._pop_mark()),
    b"s": _Machine._set_item,
    b"u": lambda m: m._set_items(m._pop_mark()),
    b"N": lambda m: m._stack.append(SCALAR),
    b"\x88": lambda m: m._stack.append(SCALAR),  # True
    b"\x89": lambda m: m._stack.append(SCALAR),  # False
    b"K": lambda m: m._skip(1, INT),
    b"M": lambda m: m._skip(2, INT),
    b"J": lambda m: m._skip(4, INT),
    b"\x8a": lambda m: m._skip(m._number(1), LONG_INT),
    b"G": lambda m: m._skip(8, SCALAR),
    b"X": lambda m: m._text(4),
    b"U": lambda m: m._text(1),
    b"q": lambda m: m._memo.__setitem__(m._number(1), m._stack[-1]),
    b"r": lambda m: m._memo.__setitem__(m._number(4), m._stack[-1]),
    b"h": lambda m: m._stack.append(m._memo[m._number(1)]),
    b"j": lambda m: m._stack.append(m._memo[m._number(4)]),
    b"Q": _Machine._persistent,
    b"R": _Machine._reduce,
    b"b": _Machine._build,
}
