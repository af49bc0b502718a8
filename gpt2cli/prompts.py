"""The one and only Alpaca template: how an instruction becomes the text that a model continues."""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from gpt2cli.errors import DataError

_FIELD = re.compile(r"\{(instruction|input)\}")


@dataclass(frozen=True)
class PromptTemplate:
    """Two texts in which `{instruction}` and `{input}` stand for what is asked; no other braces mean anything."""

    with_input: str
    without_input: str

    def prompt(self, instruction: str, input: str = "") -> str:
        """The text before the answer. A blank input is none."""
        template = self.with_input if input.strip() else self.without_input
        parts = {"instruction": instruction, "input": input}
        # in one pass, and not by str.format: what is put in may hold braces of its own
        return _FIELD.sub(lambda match: parts[match[1]], template)

    def split(self, text: str) -> tuple[str, str] | None:
        """The instruction and the input of a prompt, or of a text that begins with one; None for any other text.

        Of several ways to divide a prompt it takes one; `prompt` makes the same text of them all.
        """
        for template in (self.with_input, self.without_input):
            pattern, known = "", set[str]()
            for i, piece in enumerate(_FIELD.split(template)):
                if i % 2 == 0:  # a text; between two of them is the name of a field
                    pattern += re.escape(piece)
                elif piece in known:
                    pattern += f"(?P={piece})"
                else:
                    known.add(piece)
                    pattern += rf"(?P<{piece}>.*?\S.*?)" if piece == "input" else f"(?P<{piece}>.*?)"
            # first as the whole text: an instruction may hold the template's own words
            for found in (re.fullmatch(pattern, text, re.DOTALL), re.match(pattern, text, re.DOTALL)):
                parts = found.groupdict() if found else {}
                instruction, input = parts.get("instruction", ""), parts.get("input", "")
                if found and self.prompt(instruction, input) == found[0]:
                    return instruction, input
        return None

    @property
    def headings(self) -> tuple[str, ...]:
        """What stands before each part: an answer that comes to one has ended, and the model goes on by itself.

        A heading is the last line before a field or before the answer; if the part begins on the same line, it
        counts at the beginning of a line only.
        """
        found: dict[str, None] = {}  # in order, each once
        for template in (self.with_input, self.without_input):
            for text in _FIELD.split(template)[::2]:
                line = text.rstrip().rpartition("\n")[2].strip()
                alone = text.rstrip(" \t").endswith("\n")
                if line:
                    found[line if alone else "\n" + line] = None
        return tuple(found)

    def to_dict(self) -> dict[str, str]:
        """Plain strings by name, as a checkpoint stores them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Any) -> "PromptTemplate":
        """The template that `to_dict` gave. Raises DataError for anything else."""
        names = [field.name for field in fields(cls)]
        if not isinstance(stored, dict) or any(not isinstance(stored.get(name), str) for name in names):
            raise DataError(f"the prompt template stored with this is damaged: {' and '.join(names)} must be texts")
        return cls(*(stored[name] for name in names))


# the wording of https://github.com/tatsu-lab/stanford_alpaca, which models tuned on Alpaca know
ALPACA = PromptTemplate(
    with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    ),
    without_input=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:\n"
    ),
)
