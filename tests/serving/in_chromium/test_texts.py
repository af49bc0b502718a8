"""The page is used as a person uses it, by mouse and keyboard: it sends what it should, and shows what it gets."""

import json

import pytest

from gpt2cli.config import VOCAB_SIZE, SamplingConfig
from gpt2cli.generation.text import generate
from gpt2cli.serving.text_pieces import token_name
from gpt2cli.tokenizer import encoding
from tests.runner import wait_until
from tests.serving.in_chromium.actions import HOSTILE, complete, messages, say
from tests.serving.in_chromium.browser import SHIFT
from tests.serving.in_chromium.page_server import STREAMED
from tests.serving.live_server import live_server, small


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
        sent = wait_until(lambda: len(sent := [each for each in live.records if each.method == "POST"]) == 2 and sent)
        assert [(each.path, each.status) for each in sent] == [
            ("/v1/completions", 200),
            ("/v1/chat/completions", 200),
        ]
