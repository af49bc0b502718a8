"""From the text of an option to its value: numbers, paths, and one of several choices."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gpt2cli.bounds import FieldError, choices, one_of
from gpt2cli.suggestions import did_you_mean
from gpt2cli.untrusted import shown

OTHER_NAMES: Mapping[str, Mapping[str, str]] = {
    "--precision": {
        **dict.fromkeys(("8bit", "q8", "q80", "8"), "int8"),
        **dict.fromkeys(("4bit", "q4", "q40", "4", "nf4"), "int4"),
        **dict.fromkeys(("float16", "half", "f16", "16"), "fp16"),
        **dict.fromkeys(("float32", "full", "float", "single", "f32", "32"), "fp32"),
        "bfloat16": "bf16",
    },
    "--split": dict.fromkeys(("validation", "dev", "eval", "heldout"), "val") | {"training": "train"},
}
"""What other programs call the values of these options, as `suggestions.meant` expects it."""


def parse_value(text: str, kind: Any, option: str, least: float | None, largest: float | None) -> Any:
    """The value of this type (int, float, Path, str or a Literal) that was typed for an option.

    Raises FieldError, naming the option, for a text that is no such value, and for a number below `least` or above
    `largest`.
    """
    if allowed := choices(kind):
        return _chosen(text, allowed, option)
    if kind is int or kind is float:
        words = "a whole number" if kind is int else "a number"
        if least is not None and largest is not None:
            words += f" from {least:,} to {largest:,}"
        elif least is not None:
            words += f", {least:,} or more"
        try:
            number = kind(text)
        except ValueError:
            raise _refused(option, words, text) from None
        if (least is not None and number < least) or (largest is not None and number > largest):
            raise _refused(option, words, text)
        return number
    return Path(text) if kind is Path else text


def _chosen(text: str, allowed: Collection[str], option: str) -> str:
    if text in allowed:
        return text
    guess = did_you_mean(text, allowed, OTHER_NAMES.get(option))
    raise _refused(option, one_of(tuple(allowed)).words, text, guess)


def _refused(option: str, words: str, text: str, guess: str = "") -> FieldError:
    return FieldError(option, f"must be {words}, not {shown(text)}{f': {guess}' if guess else ''}")
