"""Parts of LLVM's language that functions decorated with `@emitted` use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

_INDEX = ir.IntType(64)


@contextmanager
def for_range(b: ir.IRBuilder, first: Any, end: Any, step: int) -> Iterator[tuple[Any, Any]]:
    """A loop: what is emitted inside runs for `first`, first + step, ... below `end`. Gives that place and a count."""
    before = b.block
    test, body, after = (b.append_basic_block(name) for name in ("test", "body", "after"))
    b.branch(test)
    b.position_at_end(test)
    place, count = b.phi(_INDEX), b.phi(_INDEX)
    b.cbranch(b.icmp_signed("<", place, end), body, after)
    b.position_at_end(body)
    yield place, count
    following = b.add(place, ir.Constant(_INDEX, step), flags=("nsw",))
    one_more = b.add(count, ir.Constant(_INDEX, 1), flags=("nsw",))
    for phi, start, then in ((place, first, following), (count, ir.Constant(_INDEX, 0), one_more)):
        phi.add_incoming(start, before)
        phi.add_incoming(then, b.block)
    b.branch(test)
    b.position_at_end(after)


def variable(b: ir.IRBuilder, kind: Any) -> Any:
    """A pointer to memory for a value of this type, which lasts until the function returns."""
    with b.goto_entry_block():
        return b.alloca(kind)


def declared(b: ir.IRBuilder, kind: ir.FunctionType, name: str) -> Any:
    """A function of LLVM or of the C library."""
    return b.module.globals.get(name) or ir.Function(b.module, kind, name)
