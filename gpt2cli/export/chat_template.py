"""Converts a prompt template to a chat template in Jinja, by which other programs make a prompt from messages."""

import re

from gpt2cli.paths import asset
from gpt2cli.prompts import PromptTemplate, preamble_of
from gpt2cli.tokenizer import END_OF_TEXT


def as_jinja(template: PromptTemplate) -> str:
    """The template in Jinja, over `messages`. Its text has the tokens of `exchanges.prompt_ids`.

    A user's message is the instruction. An assistant's message is followed by the end of text. A system message
    replaces the preamble; it is left out if the template has no place for it. All lose the blank space at their ends.
    Prompts and answers are encoded as one text, not separately as in training. The tokens can therefore differ if the
    template ends with blank space other than one line break, or if a message contains `<|endoftext|>`.
    """
    preamble = preamble_of(template.without_input) if template.has_place_for_system else ""
    first, *rest = template.split(template.without_input)
    system = (template.system or preamble) if preamble else ""
    prompt = [part for part in (_literal(first.removeprefix(system)), *_expressions(rest)) if part]
    parts = {
        "PREAMBLE": _literal(system),
        "PROMPT": " ~ ".join(["ns.system"] * bool(preamble) + prompt),
        "END_OF_TEXT": _literal(END_OF_TEXT),
    }
    lines = asset("chat_template.jinja").read_text(encoding="utf-8").splitlines()
    chat = "".join(line.strip() for line in lines)
    return re.sub("PREAMBLE|PROMPT|END_OF_TEXT", lambda name: parts[name[0]], chat)


def _expressions(parts: list[str]) -> list[str]:
    """Fields and texts in turn, as Jinja expressions. A message has no input."""
    fields = {"instruction": "instruction", "input": ""}
    return [_literal(part) if n % 2 else fields[part] for n, part in enumerate(parts)]


def _literal(text: str) -> str:
    for plain, escaped in (("\\", r"\\"), ("'", r"\'"), ("\n", r"\n"), ("\r", r"\r")):
        text = text.replace(plain, escaped)
    return f"'{text}'"
