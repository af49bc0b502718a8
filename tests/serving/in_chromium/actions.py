"""What a person does on the page, and what it sends then."""

from tests.serving.in_chromium.browser import CTRL, Tab

HOSTILE = "</script><img src=x onerror=alert(1)> &amp; <b>bold</b>"
"""A text that would do harm as HTML."""


def complete(tab: Tab, prompt: str = "Hello") -> None:
    tab.click("#prompt")
    tab.type(prompt)
    tab.press("Enter", CTRL)


def say(tab: Tab, message: str) -> None:
    tab.click("#message")
    tab.type(message)
    tab.press("Enter")


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
