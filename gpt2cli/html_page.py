"""HTML pages that load nothing else: the report of an evaluation, the page of an explanation.

The template escapes every value, and the page's Content-Security-Policy allows no script or style but its own.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from gpt2cli import __version__, paths

Filters = Mapping[str, Callable[..., Any]]
"""Functions that a template applies to values, by name."""

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
"""HTML allows no control characters. Unicode has a visible picture for each of them."""


def render(
    name: str,
    values: Mapping[str, Any],
    filters: Filters,
    further_style: str = "",
    further_policy: str = "",
    scripts: Sequence[str] = (),
) -> str:
    """The whole page in HTML, made of the assets NAME.html.jinja, NAME.css and NAME.js.

    further_style   rules that depend on the values, after those of the assets
    further_policy  directives of the Content-Security-Policy besides those that all pages have
    scripts         the names of assets that come before NAME.js
    """
    script, style = _script(name, scripts), _style(name) + further_style
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
        policy=_policy(script, style, further_policy),
    )


def policy(name: str, further_policy: str = "", scripts: Sequence[str] = ()) -> str:
    """The Content-Security-Policy that `render` puts into a page without a `further_style`, for a server's header."""
    return _policy(_script(name, scripts), _style(name), further_policy)


def visible(value: object) -> object:
    """A value of a template, its control characters replaced by pictures. The template escapes the result."""
    return value.translate(_PICTURES) if isinstance(value, str) else value


def _asset(name: str) -> str:
    return paths.asset(name).read_text(encoding="utf-8")


def _script(name: str, scripts: Sequence[str]) -> str:
    return "".join(_asset(f"{each}.js") for each in (*scripts, name))


def _style(name: str) -> str:
    return _asset("page.css") + _asset(f"{name}.css")


def _policy(script: str, style: str, further: str) -> str:
    allowed = (
        "default-src 'none'",
        f"script-src '{_policy_hash(script)}'",
        f"style-src '{_policy_hash(style)}'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join([*allowed, *filter(None, [further])])


def _policy_hash(content: str) -> str:
    """The name of an allowed script or style: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _unbroken(text: str) -> str:
    """The text with no-break spaces, so that a figure stays with its sign and its unit."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")
