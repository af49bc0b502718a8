"""Reading of HTML pages in tests: their tags, texts and tables, and what they may load."""

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "rect", "br", "path"}
"""Tags that have no end, or are written as `<rect/>`."""


class Tags(HTMLParser):
    """The tags and attributes of a page, its text, and its tables by caption: rows of texts of cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self._caption, self._rows = "", [[""]]
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th") and self._rows:
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.pop() == tag, f"</{tag}> ends another element"
        if tag == "table":
            assert self._caption not in self.tables, f"two tables: {self._caption}"
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        self.text += data
        if self.open and "caption" in self.open:
            self._caption += data
        elif self._rows and self._rows[-1] and ("td" in self.open or "th" in self.open):
            self._rows[-1][-1] += data


def assert_loads_nothing(html: str) -> None:
    """The page has no address, and its policy allows its own style and script only."""
    found = Tags(html).tags
    names = {"src", "srcset", "data", "action", "style"} | {"onclick", "onload", "onerror"}
    assert not [attributes for _, attributes in found if names & set(attributes)]
    assert all(attributes.get("href", "#").startswith("#") for _, attributes in found)
    assert "url(" not in html and "@import" not in html
    [policy] = [attributes["content"] for tag, attributes in found if attributes.get("http-equiv")]
    for kind in ("script", "style"):
        [content] = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
