"""Converts a prompt template to a chat template in Jinja, by which other programs make a prompt from messages."""

import re

from gpt2cli.paths import asset
from gpt2cli.prompts import PromptTemplate

_FIELD = re.compile(r"\{(instruction|input)\}")


def as_jinja(template: PromptTemplate) -> str:
    """The template in Jinja, over `messages`.

    A user's message is the instruction. If there is a system message before it, the system message is the instruction,
    and the user's message is its input. Earlier exchanges come first, each followed by a blank line, as in `gpt2 chat`.
    """
    texts = {"WITH_INPUT": template.with_input, "WITHOUT_INPUT": template.without_input}
    lines = asset("chat_template.jinja").read_text(encoding="utf-8").splitlines()
    chat = "".join(line.strip() for line in lines)
    return re.sub("WITH(OUT)?_INPUT", lambda name: _as_expression(texts[name[0]]), chat)


def _as_expression(text: str) -> str:
    """A text with fields as a Jinja expression: strings and variables, joined by `~`."""
    parts = _FIELD.split(text)  # text, field, text, field, ..., text
    return " ~ ".join(part if n % 2 else _as_literal(part) for n, part in enumerate(parts) if part)


def _as_literal(text: str) -> str:
    for plain, escaped in (("\\", r"\\"), ("'", r"\'"), ("\n", r"\n"), ("\r", r"\r")):
        text = text.replace(plain, escaped)
    return f"'{text}'"
