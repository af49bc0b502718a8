"""The parts of an explanation, and the lengths of prompts above which slow parts are left out.

This module does not import torch.
"""

from collections.abc import Sequence

from gpt2cli.errors import UsageError
from gpt2cli.insight.question import Question
from gpt2cli.progress import Note
from gpt2cli.suggestions import did_you_mean
from gpt2cli.untrusted import shown

PARTS = ("tokens", "next", "lens", "attention", "attribution", "saliency", "ablation", "patching")
"""The names of the parts, in the order in which they are found."""
LIMITS = {"saliency": 256, "ablation": 256, "patching": 128}
"""Tokens for each part whose cost is many passes over the prompt."""
PATTERN_NUMBERS = 3_000_000
"""The most attention probabilities that are kept, about 60 MB of JSON: 200 tokens of gpt2, 70 of gpt2-xl."""
_OTHER_NAMES = {
    **dict.fromkeys(("heads", "patterns"), "attention"),
    **dict.fromkeys(("dla", "logits"), "attribution"),
    **dict.fromkeys(("gradients", "ig"), "saliency"),
    "logitlens": "lens",
    "surprisal": "tokens",
}


def check_parts(parts: Sequence[str] | None, has_against: bool) -> None:
    """Raise UsageError for a part that does not exist, and for patching without a second prompt or the reverse."""
    if isinstance(parts, str):
        raise UsageError(f"parts is a list of names, such as ['next', 'lens'], and not one text, {shown(parts)}")
    for part in parts or ():
        if part not in PARTS:
            advice = did_you_mean(part, PARTS, _OTHER_NAMES) or f"choose from {', '.join(PARTS)}"
            raise UsageError(f"--parts has no {shown(part)}: {advice}")
    if parts is None:
        return
    if "patching" in parts and not has_against:
        raise UsageError("patching needs --against TEXT, a prompt with as many tokens")
    if has_against and "patching" not in parts:
        raise UsageError("--against is for patching: add patching to --parts, or leave --against out")


def choose_parts(parts: Sequence[str] | None, question: Question) -> tuple[list[str], Note | None]:
    """The parts to find, and a note about those that are left out because the prompt is long.

    Raises what `check_parts` raises.
    """
    check_parts(parts, question.against is not None)
    if parts is not None:
        return [part for part in PARTS if part in parts], None
    possible = [part for part in PARTS if part != "patching" or question.against is not None]
    length = len(question.prompt)
    slow = [part for part in possible if length > LIMITS.get(part, length)]
    if not slow:
        return possible, None
    text = f"left out for {length:,} tokens: {', '.join(slow)}; --parts {','.join(slow)} computes them, slowly"
    return [part for part in possible if part not in slow], Note(text)
