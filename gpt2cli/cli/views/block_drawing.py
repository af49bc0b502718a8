"""A drawing of a GPT-2: how a token passes through its parts, with the shapes of the matrices."""

from collections.abc import Iterator

from gpt2cli.config import GPTConfig
from gpt2cli.model.anatomy import Parameters

WIDTH = 54
"""Columns of the drawing. The numbers of parameters stand to the right of it."""
_IN_ASCII = str.maketrans("│─┌┐└┘├┴┬┼⊕▶◀", "|-+++++++++><")


def drawing(config: GPTConfig, parts: Parameters, *, ascii_only: bool) -> Iterator[tuple[str, int | None]]:
    """The lines, each of WIDTH columns, with the number of parameters of what is on it.

    T tokens enter at the top. The line on the left is the residual stream, (T, C), to which each part adds its output.
    """
    for line, count in _lines(config, parts):
        yield (line.translate(_IN_ASCII) if ascii_only else line).ljust(WIDTH), count


def _lines(config: GPTConfig, parts: Parameters) -> Iterator[tuple[str, int | None]]:
    C, V, S, L = config.n_embd, config.vocab_size, config.block_size, config.n_layer
    norm = parts.norm // (2 * L + 1)
    yield "   │", None
    yield _border("┌─┴─", "┐"), None
    yield _inside(f" wte: embedding {V:,} x {C:,}"), parts.embedding
    yield _inside(f" wpe: + position {S:,} x {C:,}"), parts.position
    yield _border("└─┬─", "┘"), None
    yield f"   │ (T, {C:,})", None
    yield _border("┌─┼─", "┐", f"block x {L}"), None
    yield _inside(" ├─▶ ln_1"), norm
    yield _inside(f" │   attention: {config.n_head} heads of size {config.head_size}"), parts.attention // L
    yield _inside(f" │     {C:,} -> 3 x {C:,} (q, k, v) -> {C:,}"), None
    yield _inside(" ⊕◀──┘"), None
    yield _inside(" ├─▶ ln_2"), norm
    yield _inside(f" │   MLP: {C:,} -> {4 * C:,} -> {C:,}, with GELU"), parts.mlp // L
    yield _inside(" ⊕◀──┘"), None
    total = parts.attention + parts.mlp + parts.norm - norm
    yield _border("└─┼─", "┘", "all blocks"), total
    yield "   │", None
    yield "  ln_f", norm
    yield "   │", None
    head = "wte again (tied)" if config.tied else "lm_head"
    yield f"  head: {C:,} -> {V:,}, {head}", parts.head
    yield "   │", None
    yield f" (T, {V:,}) logits of the next token", None


def _border(left: str, right: str, label: str = "") -> str:
    label = f" {label} " if label else ""
    return " " + left + label + "─" * (WIDTH - len(left) - len(label) - 4) + right


def _inside(text: str) -> str:
    return " │" + text.ljust(WIDTH - 5)[: WIDTH - 5] + "│"
