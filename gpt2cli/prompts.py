"""Prompt templates: how an instruction becomes the text that a model continues."""

import re
from dataclasses import dataclass, replace
from typing import Any

from gpt2cli import paths
from gpt2cli.errors import DataError, ResourceError, UsageError
from gpt2cli.suggestions import advise, did_you_mean_file
from gpt2cli.untrusted import is_encodable, is_file, parse_json, read_at_most, shown

_FIELD = re.compile(r"\{(instruction|input)\}")
MOST_FIELDS = 16
"""The most fields of a template."""


@dataclass(frozen=True)
class PromptTemplate:
    """Two texts with the fields `{instruction}` and `{input}`. Other braces are plain text.

    A `system` text, if it is not empty, replaces the preambles. All braces in it are plain text.

    Raises DataError if a text has more than MOST_FIELDS fields, as its prompts would take too much memory.
    """

    with_input: str
    without_input: str
    system: str = ""

    def __post_init__(self) -> None:
        for name, text in (("with_input", self.with_input), ("without_input", self.without_input)):
            if isinstance(text, str) and (count := len(_FIELD.findall(text))) > MOST_FIELDS:
                raise DataError(f"{name} holds {count:,} fields, more than {MOST_FIELDS}")

    def prompt(self, instruction: str, input: str = "") -> str:
        """The text before the answer. A blank input counts as no input."""
        values = {"instruction": instruction, "input": input if input.strip() else ""}
        # in one pass, and not by str.format: the values may contain braces
        parts = self.split(self.with_input if input.strip() else self.without_input)
        return "".join(values[part] if i % 2 else part for i, part in enumerate(parts))

    def split(self, text: str) -> list[str]:
        """One of the two texts as text, name of a field, text, ..., text; with `system` in place of the preamble."""
        first, *rest = _FIELD.split(text)
        if self.system and (preamble := preamble_of(text)):
            first = self.system + first[len(preamble) :]
        return [first, *rest]

    @property
    def has_place_for_system(self) -> bool:
        """Whether both texts have a preamble, which a system text can replace."""
        return bool(preamble_of(self.with_input) and preamble_of(self.without_input))

    def with_system(self, text: str) -> "PromptTemplate":
        """The template with this system text, without blank space at either end; with an empty one, the preambles."""
        return replace(self, system=text.strip())

    def parts(self, text: str) -> tuple[str, str, str] | None:
        """The instruction, the input and the response in a text that `prompt` began; None for any other text.

        The inverse of `prompt`. The input is empty if there is none. If a field contains the text that follows it in
        the template, it ends there.
        """
        for template in (self.with_input, self.without_input):
            pattern, known = "", set[str]()
            for i, part in enumerate(self.split(template)):
                if i % 2 == 0:
                    pattern += re.escape(part)
                else:
                    pattern += f"(?P={part})" if part in known else f"(?P<{part}>.*?)"
                    known.add(part)
            found = re.fullmatch(f"{pattern}(?P<response>.*)", text, re.DOTALL)
            if found:
                values = found.groupdict()
                return values.get("instruction", ""), values.get("input", ""), values["response"]
        return None

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings of the parts. If a model writes one, its answer has ended, and it continues with a new record.

        A heading is the last line before a field or before the answer. If the field begins on the same line, the
        heading is matched at the beginning of a line only.
        """
        found: dict[str, None] = {}  # in order, each once
        for template in (self.with_input, self.without_input):
            for text in self.split(template)[::2]:
                line = text.rstrip().rpartition("\n")[2].strip()
                alone = text.rstrip(" \t").endswith("\n")
                if line:
                    found[line if alone else "\n" + line] = None
        return tuple(found)

    def to_dict(self) -> dict[str, str]:
        """The texts by name, as a checkpoint stores them: `system` only if there is one."""
        texts = {"with_input": self.with_input, "without_input": self.without_input}
        return texts | ({"system": self.system} if self.system else {})

    @classmethod
    def from_dict(cls, stored: Any) -> "PromptTemplate":
        """The inverse of `to_dict`. Raises DataError for anything else."""
        if not isinstance(stored, dict):
            raise DataError(f"the prompt template is {shown(stored)}, not an object")
        texts = {"system": ""} | stored
        for name in ("with_input", "without_input", "system"):
            if not isinstance(texts.get(name), str):
                found = shown(texts[name]) if name in texts else "missing"
                raise DataError(f"{name} is {found} in the prompt template")
        return cls(texts["with_input"], texts["without_input"], texts["system"])


def preamble_of(text: str) -> str:
    """All that stands before the heading of the first field, without the blank space between them; may be empty."""
    before, *fields = _FIELD.split(text)
    if not fields:
        return ""
    is_alone = before.rstrip(" \t").endswith("\n")  # the heading, on a line before the field's
    return before[: (before.rstrip() if is_alone else before).rfind("\n") + 1].rstrip()


def check_place_for_system(template: PromptTemplate | None) -> PromptTemplate:
    """The template. Raises UsageError if a system text cannot replace its preamble, or if there is no template."""
    if template is None:
        raise UsageError("a text that is continued has no system text: leave it out")
    if not template.has_place_for_system:
        raise UsageError("the prompt template has no preamble, which a system text replaces: leave it out")
    return template


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

# Alpaca's sentences, with an empty line between them
SEED = PromptTemplate(
    with_input=ALPACA.with_input.replace(" Write a response", "\n\nWrite a response"),
    without_input=ALPACA.without_input.replace(" Write a response", "\n\nWrite a response"),
)

TEMPLATES = {"alpaca": ALPACA, "seed": SEED}
"""The templates that have a name."""
LONGEST_FILE = 2**18
"""Bytes of the largest file of a template that is read. GPT-2's window holds far less."""


def read_template(choice: str) -> PromptTemplate:
    """The template of this name, or else the one in the JSON file of this name.

    The file holds an object with two texts: `with_input`, with the fields `{instruction}` and `{input}`, and
    `without_input`, with the field `{instruction}`. A text `system` in it replaces their preambles. Raises UsageError
    if no template and no file has this name, DataError for a file that holds anything else, and ResourceError for a
    file that cannot be read.
    """
    if choice in TEMPLATES:
        return TEMPLATES[choice]
    path = paths.expand(choice)
    if not is_file(path):
        guess = did_you_mean_file(path, (".json",), TEMPLATES)
        advice = advise(guess, f"give {', '.join(TEMPLATES)}, or a JSON file with a template")
        raise UsageError(f"there is no template {shown(choice)}: {advice}")
    try:
        return _parsed(read_at_most(path, LONGEST_FILE))
    except OSError as error:
        raise ResourceError(f"cannot read the template {path} ({error.strerror or error})") from None
    except DataError as error:
        raise DataError(
            f'{path} is not a template: {error}: write {{"with_input": "... {{instruction}} ... {{input}} ...", '
            '"without_input": "... {instruction} ..."}'
        ) from None


def _parsed(content: bytes | None) -> PromptTemplate:
    """The template in a file's content. Raises DataError if it is invalid, or lacks a field."""
    if content is None:
        raise DataError(f"it is larger than {LONGEST_FILE:,} bytes")
    try:
        template = PromptTemplate.from_dict(parse_json(content.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise DataError(f"not valid UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise DataError(f"bad JSON ({error})") from None
    check_fields(template)
    return template.with_system(template.system)


def check_fields(template: PromptTemplate) -> None:
    """Raise DataError if a text lacks one of its fields or is not valid Unicode, or a system text has no place."""
    fields = {"with_input": ("{instruction}", "{input}"), "without_input": ("{instruction}",)}
    for name, text in template.to_dict().items():
        for part in fields.get(name, ()):
            if part not in text:
                raise DataError(f"{name} does not hold {part}")
        if not is_encodable(text):
            raise DataError(f"{name} is not valid Unicode")
    if template.system.strip() and not template.has_place_for_system:
        raise DataError("system replaces the text before the first heading, and there is none")
