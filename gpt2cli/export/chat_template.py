"""A prompt template as a chat template: Jinja, the language in which other programs turn messages into a prompt."""

import re

from gpt2cli.prompts import PromptTemplate

_FIELD = re.compile(r"\{(instruction|input)\}")

_CHAT = (
    "{{%- set ns = namespace(system='') -%}}"
    "{{%- for message in messages -%}}"
    "{{%- if message['role'] == 'system' -%}}"
    "{{%- set ns.system = message['content'] -%}}"
    "{{%- elif message['role'] == 'assistant' -%}}"
    "{{{{- message['content'] + '\\n\\n' -}}}}"
    "{{%- elif not ns.system -%}}"
    "{{%- set instruction = message['content'] -%}}"
    "{{{{- {without_input} -}}}}"
    "{{%- else -%}}"
    "{{%- set instruction = ns.system -%}}"
    "{{%- set input = message['content'] -%}}"
    "{{%- if input | trim -%}}{{{{- {with_input} -}}}}{{%- else -%}}{{{{- {without_input} -}}}}{{%- endif -%}}"
    "{{%- endif -%}}"
    "{{%- endfor -%}}"
)


def as_jinja(template: PromptTemplate) -> str:
    """The template in Jinja, over `messages`.

    A user's message is the instruction. If there is a system message before it, the system message is the instruction,
    and the user's message is its input. Earlier exchanges come first, each followed by a blank line, as in `gpt2 chat`.
    """
    return _CHAT.format(
        with_input=_as_expression(template.with_input), without_input=_as_expression(template.without_input)
    )


def _as_expression(text: str) -> str:
    """A text with fields as a Jinja expression: strings and variables, put together by `~`."""
    parts = _FIELD.split(text)  # text, field, text, field, ..., text
    return " ~ ".join(part if n % 2 else _as_literal(part) for n, part in enumerate(parts) if part)


def _as_literal(text: str) -> str:
    for plain, escaped in (("\\", r"\\"), ("'", r"\'"), ("\n", r"\n"), ("\r", r"\r")):
        text = text.replace(plain, escaped)
    return f"'{text}'"
