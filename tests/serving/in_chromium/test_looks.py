"""The page does not move while a text is written, fits a phone, and obeys the keyboard."""

import pytest

from tests.serving.in_chromium.actions import HOSTILE, complete, say


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_moves_while_a_text_is_written(tab, server, address, width):
    tab.open(address, width=width)
    tab.wait_for_text("#model", "scripted")
    tab.click("#colour")
    tab.value("byId('prompt').focus()")
    parts = "document.querySelectorAll('#completion > *, #settings')"
    places = f"[...{parts}].map((each) => Object.values(each.getBoundingClientRect().toJSON()))"
    before = tab.value(places)
    server.pieces, server.holds = ["word\n"] * 100 + ["end"], True
    complete(tab)
    tab.wait_for_text("#continuation", "word\n" * 100)
    assert tab.value(places) == before
    assert tab.value("continuation.scrollTop + continuation.clientHeight + 1 >= continuation.scrollHeight")
    tab.value("continuation.scrollTop = 0")  # the reader goes back
    server.release()
    tab.wait_for_text("#completion .status", "seed")
    assert tab.value("continuation.scrollTop") == 0
    assert tab.value(places) == before


def test_a_model_without_a_template_has_a_note_that_chat_is_a_guess(browser, server, address):
    server.reset()
    server.template = "none: the model continues the conversation"
    browser.open(address)
    browser.wait_for_text("#guess", f"Chat is a guess for this model. Its prompt template: {server.template}.")
    browser.click("#chat-tab")
    assert browser.value("byId('guess').checkVisibility()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(browser, server, address, scheme):
    server.reset()
    server.pieces = ["long" * 200, HOSTILE]
    browser.open(address, width=400, height=850, scheme=scheme)
    for tab in ("completion", "chat"):
        browser.click(f"#{tab}-tab")
        (complete if tab == "completion" else say)(browser, "wide" * 200)
        browser.wait_for_text(f"#{tab} .status", "has ended")
        assert browser.value("document.documentElement.scrollWidth") == 400
        buttons = "[...document.querySelectorAll('button')].filter((e) => e.checkVisibility())"
        assert min(browser.value(f"{buttons}.map((e) => e.offsetHeight)")) >= 40


def test_the_tabs_obey_the_arrow_keys(tab):
    tab.click("#completion-tab")
    tab.press("ArrowRight")
    assert tab.value("[document.activeElement.id, completion.root.hidden, chat.root.hidden]") == [
        "chat-tab",
        True,
        False,
    ]
    tab.press("ArrowLeft")
    assert tab.value("[document.activeElement.id, completion.root.hidden, chat.root.hidden]") == [
        "completion-tab",
        False,
        True,
    ]
