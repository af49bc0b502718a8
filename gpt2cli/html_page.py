"""HTML pages that load nothing else: the report of an evaluation, the page of an explanation.

The template escapes every value, and the page's Content-Security-Policy allows no script or style but its own.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from gpt2cli import __version__, paths

Filters = Mapping[str, Callable[..., Any]]
"""Functions that a template applies to values, by name."""

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
"""HTML allows no control characters. Unicode has a visible picture for each of them."""


def render(name: str, values: Mapping[str, Any], filters: Filters, further_style: str = "") -> str:
    """The whole page in HTML, made of the assets NAME.html.jinja, NAME.css and NAME.js.

    further_style  rules that depend on the values, after those of the assets
    """
    script = _asset(f"{name}.js")
    style = _asset("page.css") + _asset(f"{name}.css") + further_style
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"unbroken": _unbroken} | dict(filters)
    return environment.get_template(f"{name}.html.jinja").render(
        values,
        version=__version__,
        script=script,
        style=style,
        script_hash=_policy_hash(script),
        style_hash=_policy_hash(style),
    )


def visible(value: object) -> object:
    """A value of a template, its control characters replaced by pictures. The template escapes the result."""
    return value.translate(_PICTURES) if isinstance(value, str) else value


def _asset(name: str) -> str:
    return paths.asset(name).read_text(encoding="utf-8")


def _policy_hash(content: str) -> str:
    """The name of an allowed script or style: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _unbroken(text: str) -> str:
    """The text with no-break spaces, so that a figure stays with its sign and its unit."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")
