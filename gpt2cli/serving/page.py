"""The page at `/`, in which a person can try the model. It is the same for every model and every request."""

from dataclasses import fields
from urllib.parse import quote

from gpt2cli import html_page
from gpt2cli.config import CHAT, SamplingConfig

LARGEST_SEED = 2**53 - 1
"""A number of JavaScript is exact up to this one."""

_SCRIPTS = ("serve_stream", "serve_panel")
_POLICY = "connect-src 'self'; img-src data:"
_ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><rect width='16' height='16' rx='3' fill='#2f6fdb'/>"
    "<path d='M3 5h7M3 8h5M3 11h3M8 11h2' stroke='#fff' stroke-width='1.6'/></svg>"
)


def page() -> str:
    """The page in HTML."""
    values = {
        "title": "gpt2 serve",
        "icon": f"data:image/svg+xml,{quote(_ICON)}",
        "sampling": SamplingConfig(),
        "chat": CHAT,
        "help": {field.name: field.metadata.get("help", "") for field in fields(SamplingConfig)},
        "largest_seed": LARGEST_SEED,
    }
    return html_page.render("serve", values, {"plain": "{:g}".format}, further_policy=_POLICY, scripts=_SCRIPTS)


def headers() -> dict[str, str]:
    """The headers of the page. `frame-ancestors` has an effect only in a header, so the page lacks it."""
    policy = html_page.policy("serve", _POLICY, _SCRIPTS)
    return {
        "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
