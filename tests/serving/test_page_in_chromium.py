"""The page is used as a person uses it: by mouse and keyboard, with answers, errors and a hostile model."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.generation.text import generate
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.text_pieces import token_name
from gpt2cli.tokenizer import encoding
from tests.serving.browser import CHROMIUM, CTRL, SHIFT, Tab, chromium
from tests.serving.live_server import live_server, small
from tests.serving.page_server import STREAMED, PageServer
from tests.serving.small_server import wait_until

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

HOSTILE = "</script><img src=x onerror=alert(1)> &amp; <b>bold</b>"


@pytest.fixture(scope="module")
def server() -> PageServer:
    return PageServer()


@pytest.fixture(scope="module")
def address(server: PageServer) -> Iterator[str]:
    with server.running() as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Tab]:
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, server: PageServer, address: str) -> Iterator[Tab]:
    """The page, which knows its model."""
    server.reset()
    browser.open(address)
    browser.wait_for_text("#model", "scripted")
    browser.logged.clear()
    yield browser
    assert not [line for line in browser.logged if "status of" not in line and "net::ERR" not in line]


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


def test_a_completion_continues_the_text_and_says_how_it_went(tab, server):
    complete(tab, "Hello,\n<b>you</b>")
    tab.wait_for_text("#completion .status", "seed")
    assert tab.text("#continuation") == "Hello,\n<b>you</b>Once upon a time."
    [body] = server.bodies
    status = tab.text("#completion .status")
    for words in ("The text has ended.", "7 prompt tokens, 9 new", "first token after", f"seed {body['seed']}"):
        assert words in status
    tab.click("#append")
    assert tab.value("byId('prompt').value") == "Hello,\n<b>you</b>Once upon a time."


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


@pytest.mark.parametrize("way", ["button", "key"])
def test_stop_ends_the_request_and_keeps_the_text(tab, server, way):
    server.holds = True
    complete(tab)
    tab.wait_for_text("#continuation", "Once upon")
    if way == "button":
        tab.click("#completion .stop")
    else:
        tab.press("Escape")
    tab.wait_for_text("#completion .status", "Stopped.")
    assert server.left.wait(30)
    assert tab.text("#continuation") == "HelloOnce upon"
    server.holds = False
    complete(tab, " again")
    tab.wait_for_text("#completion .status", "The text has ended.")


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_what_a_model_writes_is_text(tab, server, kind):
    server.pieces = [HOSTILE[:20], HOSTILE[20:]]
    tab.click(f"#{kind}-tab")
    tab.click("#colour") if kind == "completion" else None
    (complete if kind == "completion" else say)(tab, HOSTILE)
    tab.wait_for_text(f"#{kind} .status", "has ended")
    assert tab.text("#continuation" if kind == "completion" else "#log article").startswith(HOSTILE * 2)
    assert not tab.value("document.querySelectorAll('main img, main b, main script').length")


def test_tokens_have_colours_and_tell_what_else_was_likely(tab, server):
    euro = [r"bytes: \xe2", r"bytes:\x82\xac"]  # the euro sign takes two tokens
    server.pieces = ["Once", " €", "!"]
    server.logprobs = [
        {"tokens": ["Once"], "token_logprobs": [-0.1], "top_logprobs": [{"Once": -0.1, " a b": -3.0, "\n": -2.5}]},
        {"tokens": euro, "token_logprobs": [-1.0, -5.0], "top_logprobs": [{euro[0]: -1.0}, {euro[1]: -5.0, "x": -0.1}]},
        {"tokens": ["!"], "token_logprobs": [-1.0], "top_logprobs": [{"!": -1.0}]},
    ]
    complete(tab)
    tab.wait_for_text("#completion .status", "has ended")
    spans = "[...continuation.querySelectorAll('[tabindex]')].map((e) => [e.textContent, e.className])"
    assert tab.value(spans) == [["Once", "p0"], [" ", "p1"], ["€", "p4"], ["!", "p1"]]
    background = "getComputedStyle(continuation.querySelector('.p4')).backgroundColor"
    plain = tab.value(background)
    tab.click("#colour")
    assert tab.value(background) != plain
    tab.value("continuation.focus()")
    tab.press("ArrowRight")
    assert tab.text("#readout").replace("\u2068", "").replace("\u2069", "") == (
        "“Once” had 90.5 %. Likeliest others: “↵” 8.2 %, “·a·b” 5.0 %."
    )
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    tab.press("ArrowLeft")
    assert tab.value("document.activeElement.textContent") == " "


def test_the_page_knows_the_bytes_of_every_token(tab):
    names = [token_name(token) for token in range(VOCAB_SIZE)]
    found = tab.value(
        f"{json.dumps(names)}.map((name) => Array.from(bytesOf(name), (byte) => byte.toString(16)).join())"
    )
    assert found == [
        ",".join(f"{byte:x}" for byte in encoding().decode_single_token_bytes(i)) for i in range(VOCAB_SIZE)
    ]


def test_a_chat_sends_the_earlier_exchanges_and_can_be_answered_again(tab, server):
    tab.click("#chat-tab")
    asked: list[str] = []
    for number in range(3):
        asked += [f"Question {number}?"]
        tab.click("#message")
        tab.type(f"Question {number}")
        if number == 1:
            tab.press("Enter", SHIFT)
            asked[-1] = "Question 1\n?"
        tab.type("?")
        tab.press("Enter")
        tab.wait_for_text(f"#log article:nth-child({number + 1}) .note", "seed")
        assert server.bodies[-1]["messages"] == messages(*asked)
        asked += ["Once upon a time."]
    server.pieces = ["Another", " answer"]
    tab.click("#again")
    tab.wait_for_text("#log article:last-child .said", "Another answer")
    tab.wait_for_text("#chat .status", "has ended")
    assert server.bodies[-1]["messages"] == messages(*asked[:-1])
    tab.click("#clear")
    assert tab.text("#log") == ""
    say(tab, "New")
    tab.wait_for_text("#chat .status", "has ended")
    assert server.bodies[-1]["messages"] == messages("New")


def test_an_exchange_without_answer_is_not_sent(tab, server):
    tab.click("#chat-tab")
    server.refusal = RefusedError(500, "the model failed")
    say(tab, "One")
    tab.wait_for_text("#log .note", "The model failed.")
    server.refusal = None
    say(tab, "Two")
    tab.wait_for_text("#chat .status", "has ended")
    assert server.bodies[-1]["messages"] == messages("Two")


def test_the_settings_are_sent(tab, server):
    tab.value("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    values = {"temperature": 0, "top_k": 0, "top_p": 0.5, "max_tokens": 3, "seed": 7, "min_p": 0.25}
    values |= {"repetition_penalty": 1.5, "frequency_penalty": -2, "presence_penalty": 2}
    for name, value in values.items():
        tab.value(f"settings.querySelector('[name={name}]').value = '{value}'")
    tab.value(r"byId('stop').value = 'END\n\\n\\n\n\n'")
    complete(tab)
    tab.wait_for_text("#completion .status", "seed 7")
    assert server.bodies == [values | STREAMED | {"prompt": "Hello", "logprobs": 5, "stop": ["END", "\n\n"]}]
    tab.click("#settings [type=reset]")
    tab.click("#new-seed")
    seed = int(tab.value("byId('seed').value"))
    tab.click("#completion .send")
    tab.wait_for_text("#completion .status", f"seed {seed}")
    assert (
        server.bodies[1]["seed"] == seed and server.bodies[1]["temperature"] == 0.7 and "stop" not in server.bodies[1]
    )
    tab.press("Tab")  # wherever the focus is, the keyboard goes on from there
    tab.click("#chat-tab")
    say(tab, "Hi")
    tab.wait_for_text("#chat .status", "has ended")
    assert server.bodies[2]["max_tokens"] == 256


def test_a_value_out_of_bounds_is_shown_and_not_sent(tab, server):
    tab.value("byId('min_p').value = '2'")
    complete(tab)
    tab.wait("document.activeElement.id === 'min_p'")  # it was in a closed part of the settings
    assert server.bodies == []


REFUSALS: list[tuple[RefusedError, str]] = [
    (RefusedError(400, "min_p must be from 0 to 1, not 2", "min_p"), "Min_p must be from 0 to 1, not 2."),
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


def test_a_real_model_answers(browser):
    """The real server takes what the page sends, and the page shows what it generates."""
    with live_server(small(), key="right") as live:
        browser.open(f"{live.url}/")
        browser.wait_for_text("#about", "The server asks for an API key.")
        browser.type("right")
        browser.press("Enter")
        browser.wait_for_text("#model", "tiny")
        browser.value("byId('seed').value = '5'")
        complete(browser)
        browser.wait_for_text("#completion .status", "seed 5")
        text = generate(small(), "Hello", SamplingConfig(seed=5))
        assert browser.text("#continuation") == f"Hello{text}"
        tokens = "[...continuation.querySelectorAll('[tabindex]')].map((each) => each.textContent).join('')"
        assert browser.value(tokens) == text
        browser.click("#chat-tab")
        say(browser, "Hello")
        browser.wait_for_text("#log .note", "seed 5")
        wait_until(live.is_idle)
        assert [(record.path, record.status) for record in live.records if record.method == "POST"] == [
            ("/v1/completions", 200),
            ("/v1/chat/completions", 200),
        ]


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
