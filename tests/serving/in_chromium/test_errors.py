"""What the page says when a request is refused, a text breaks off, or the server is not there."""

from contextlib import ExitStack

import pytest

from gpt2cli.serving.refused_error import RefusedError
from tests.serving.in_chromium.actions import complete, messages, say
from tests.serving.in_chromium.browser import CTRL
from tests.serving.in_chromium.page_server import PageServer


def test_an_exchange_without_answer_is_not_sent(tab, server):
    tab.click("#chat-tab")
    server.refusal = RefusedError(500, "the model failed")
    say(tab, "One")
    tab.wait_for_text("#log .note", "The model failed.")
    server.refusal = None
    say(tab, "Two")
    tab.wait_for_text("#chat .status", "has ended")
    assert server.bodies[-1]["messages"] == messages("Two")


def test_a_value_out_of_bounds_is_shown_and_not_sent(tab, server):
    tab.value("byId('min_p').value = '2'")
    complete(tab)
    tab.wait("document.activeElement.id === 'min_p'")  # it was in a closed part of the settings
    assert server.bodies == []


REFUSALS: list[tuple[RefusedError, str]] = [
    (RefusedError(400, "min_p must be from 0 to 1, not 2", "min_p"), "min_p must be from 0 to 1, not 2."),
    (
        RefusedError(429, "queue full", headers={"Retry-After": "7"}),
        "too many requests at the moment. Try again in 7 s.",
    ),
    (RefusedError(500, "the model's numbers diverged: use fp32"), "The model's numbers diverged: use fp32."),
    (RefusedError(403, "the Host is wrong"), "The Host is wrong."),
]


@pytest.mark.parametrize(("refusal", "words"), REFUSALS, ids=lambda value: str(getattr(value, "status", "")))
def test_refusals_are_told_in_words(tab, server, refusal, words):
    server.refusal = refusal
    complete(tab)
    tab.wait_for_text("#completion .status", words)
    assert tab.value("document.querySelector('#completion .status').classList.contains('failed')")
    marked = tab.value("[...settings.querySelectorAll('[aria-invalid=true]')].map((each) => each.name)")
    assert marked == ([refusal.param] if refusal.param else [])
    server.refusal = None
    tab.click("#completion .send")
    tab.wait_for_text("#completion .status", "The text has ended.")


@pytest.mark.parametrize(
    ("breaks", "words"),
    [("the model diverged", "The model diverged."), ("", "The text broke off: the connection to the server ended.")],
)
def test_a_text_that_breaks_off_stays(tab, server, breaks, words):
    server.breaks = breaks
    tab.click("#chat-tab")
    say(tab, "Hello")
    tab.wait_for_text("#chat .status", words)
    assert tab.text("#log .said") == "Once upon"
    assert "About 2 new tokens" in tab.text("#log .note")


def test_a_key_is_asked_for_and_kept_out_of_the_address(tab, server, address):
    server.refusal, server.key = RefusedError(401, "wrong key"), "right"
    complete(tab)
    tab.wait_for_text("#completion .status", "The server asks for an API key.")
    assert tab.value("document.activeElement.id") == "key"
    tab.type("wrong")
    tab.press("Enter")
    tab.wait_for_text("#about", "The server does not accept this API key.")
    tab.wait("document.activeElement.id === 'key'")
    tab.type("right")  # in place of the wrong one, which is selected
    tab.press("Enter")
    tab.wait_for_text("#completion .status", "The server accepts the key.")
    tab.press("Enter", CTRL)
    tab.wait_for_text("#completion .status", "The text has ended.")
    assert tab.value("[location.href, localStorage.length + sessionStorage.length, document.cookie]") == [
        address,
        0,
        "",
    ]


def test_the_page_waits_for_a_model_that_is_loading(browser, server, address):
    server.reset()
    server.refusal = RefusedError(
        503, "the model is still loading: try again in a moment", headers={"Retry-After": "1"}
    )
    browser.open(address)
    browser.wait_for_text("#about", "The model is still loading")
    server.refusal = None
    browser.wait_for_text("#model", "scripted")


def test_the_page_waits_for_a_server_that_is_gone(browser):
    server = PageServer()
    with ExitStack() as stack:
        address = stack.enter_context(server.running())
        browser.open(address)
        browser.wait_for_text("#model", "scripted")
        server.holds = True
        complete(browser)
        browser.wait_for_text("#continuation", "Once upon")
    browser.wait_for_text("#completion .status", "The text broke off: the connection to the server ended.")
    browser.wait_for_text("#about", "The server does not answer.")
    assert browser.text("#continuation") == "HelloOnce upon"
    server.reset()
    with server.running(port=int(address.rstrip("/").rpartition(":")[2])):
        browser.wait_for_text("#about", "Window of 1,024 tokens")
        browser.click("#completion .send")
        browser.wait_for_text("#completion .status", "The text has ended.")
