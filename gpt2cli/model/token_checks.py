"""Checks of token ids before a forward pass. They need no torch."""

from gpt2cli.errors import UsageError


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise UsageError for token ids that are not in rows, or that are none."""
    if len(shape) != 2 or 0 in shape:
        advice = "[ids] makes one row" if len(shape) == 1 else "give B rows of T ids"
        raise UsageError(f"token ids must have the shape (B, T), not {tuple(shape)}: {advice}")


def check_length(length: int, window: int) -> None:
    """Raise UsageError for more tokens than the window holds."""
    if length > window:
        raise UsageError(
            f"{length} tokens do not fit into the model's window of {window}: give {length - window} fewer"
        )
