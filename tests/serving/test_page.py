"""The page loads nothing, has the command line's defaults, and can be used by everybody."""

import base64
import hashlib
import re

import pytest

from gpt2cli.config import CHAT, SamplingConfig
from gpt2cli.serving.chat_fields import chat_request
from gpt2cli.serving.completion_fields import completion_request
from gpt2cli.serving.page import LARGEST_SEED, page
from tests.pages import Tags
from tests.serving.in_chromium.page_server import STREAMED
from tests.serving.served_models import described_model


@pytest.fixture(scope="module")
def html() -> str:
    return page()


@pytest.fixture(scope="module")
def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    return Tags(html).tags


def content(html: str, kind: str) -> str:
    [found] = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
    return found


def test_the_page_loads_nothing_and_talks_to_its_server_only(html, tags):
    assert not [attributes for _, attributes in tags if {"src", "srcset", "data", "action", "style"} & {*attributes}]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    [link] = [attributes for tag, attributes in tags if tag == "link"]
    assert link["rel"] == "icon" and link["href"].startswith("data:image/svg+xml,")
    assert not [attributes for tag, attributes in tags if "href" in attributes and tag != "link"]
    style, script = content(html, "style"), content(html, "script")
    assert "url(" not in style and "@import" not in style and "//" not in re.sub(r"//.*", "", script)


def test_the_policy_allows_the_script_and_the_style_of_the_page(html, tags):
    [policy] = [attributes["content"] for _, attributes in tags if attributes.get("http-equiv")]
    digests = {
        kind: base64.b64encode(hashlib.sha256(content(html, kind).encode()).digest()).decode()
        for kind in ("script", "style")
    }
    assert policy.split("; ") == [
        "default-src 'none'",
        *(f"{kind}-src 'sha256-{digest}'" for kind, digest in digests.items()),
        "base-uri 'none'",
        "form-action 'none'",
        "connect-src 'self'",
        "img-src data:",
    ]


def test_the_script_makes_no_html_and_runs_no_text(html):
    dangerous = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|srcdoc|DOMParser|setHTML"
    assert not re.search(dangerous, content(html, "script"))


def test_every_control_has_a_label(tags):
    labelled = {attributes["for"] for tag, attributes in tags if tag == "label" and "for" in attributes}
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len({*ids})
    for tag, attributes in tags:
        if tag in ("input", "textarea") and attributes.get("type") != "checkbox":  # its label is around it
            assert attributes["id"] in labelled
        for name in ("aria-describedby", "aria-labelledby", "aria-controls"):
            assert {*(attributes.get(name) or "").split()} <= {*ids}
        if attributes.get("tabindex") == "0":
            assert attributes["aria-label"]


def test_the_defaults_are_those_of_the_command_line(tags):
    shown = {
        attributes["id"]: attributes.get("value") for tag, attributes in tags if attributes.get("type") == "number"
    }
    defaults = SamplingConfig()
    for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
        assert float(shown.pop(name)) == getattr(defaults, name) == getattr(CHAT, name)
    assert shown.pop("max_tokens-completion") == str(defaults.max_new_tokens)
    assert shown.pop("max_tokens-chat") == str(CHAT.max_new_tokens)
    assert shown == {"seed": None, "frequency_penalty": "0", "presence_penalty": "0"}


def test_the_limits_are_values_that_the_command_line_takes(tags):
    for tag, attributes in tags:
        name = {"max_tokens": "max_new_tokens"}.get(attributes.get("name"), attributes.get("name"))
        for limit in {"min", "max"} & {*attributes}:
            value = float(attributes[limit])
            if tag == "input" and value and not name.endswith(("frequency_penalty", "presence_penalty")):
                SamplingConfig(**{name: int(value) if name == "seed" else value})
    assert float(LARGEST_SEED) == LARGEST_SEED and float(LARGEST_SEED + 2) != LARGEST_SEED + 2


def test_every_setting_is_a_field_that_the_server_honours(tags):
    values = {name: float(value or 7) for name, value in settings(tags).items()}
    whole = {name: int(values[name]) for name in ("top_k", "max_tokens", "seed")}
    body = values | whole | STREAMED | {"stop": ["END"]}
    completion = completion_request(body | {"prompt": "Hello", "logprobs": 5}, described_model())
    chat = chat_request(body | {"messages": [{"role": "user", "content": "Hello"}]}, described_model())
    for request in (completion, chat):
        assert request.stream and request.include_usage
        assert request.texts[0].sampling.seed == 7


def settings(tags: list[tuple[str, dict[str, str | None]]]) -> dict[str, str | None]:
    """The names of the fields that the settings give, and the values in the page."""
    return {
        attributes["name"]: attributes.get("value")
        for tag, attributes in tags
        if tag == "input" and "name" in attributes
    }


def test_a_person_learns_what_gpt2_is_not(html):
    assert "it makes things up" in Tags(html).text
