"""The log of a server."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gpt2cli.cli.environment import Environment, use
from gpt2cli.cli.terminal import Console
from gpt2cli.cli.views.log_printer import LogPrinter
from gpt2cli.cli.views.serving import Address, ServerLog, example, in_words
from gpt2cli.config import GPTConfig
from gpt2cli.prompts import ALPACA
from gpt2cli.serving.engine import Load
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.service import RequestRecord
from tests.runner import Pipe

MODEL = ServedModel("mine.pt", 1, GPTConfig(), "fp16", "cpu", ALPACA, False, "fp_1")
ENGINE: Any = SimpleNamespace(slots=2, kv_bytes=75_500_000)
RECORD = RequestRecord("POST", "/v1/completions", 200, 1.5, 0.5, 1200, 41)


def logged(json: bool, quiet: bool, *calls: tuple[Any, ...]) -> tuple[str, str]:
    """What a log writes to stdout and stderr."""
    stdout, stderr = Pipe(), Pipe()
    with use(Environment(Pipe(), stdout, stderr, {})), LogPrinter(Console(quiet), json, pytest.fail) as printer:
        log = ServerLog(printer)
        for name, *arguments in calls:
            getattr(log, name)(*arguments)
    return stdout.written(), stderr.written()


ALL_CALLS = (
    ("ready", Address("127.0.0.1", 8000), MODEL, ENGINE),
    ("answered", RECORD),
    ("answered", RequestRecord("GET", "/health", 200, 0.001)),
    ("ending", Load(1, 2, 3), 5.0),
)


def test_people_see_a_line_for_each_event():
    stdout, stderr = logged(False, False, *ALL_CALLS)
    assert stdout == ""
    first, example, request, ending = stderr.splitlines()
    assert first == (
        "serving mine.pt at http://127.0.0.1:8000 with 2 slots (75.5 MB for keys and values); Ctrl-C ends it"
    )
    assert example.startswith("to try it: curl http://127.0.0.1:8000/v1/chat/completions")
    time, _, words = request.partition("  ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time)
    assert words == "POST /v1/completions 200  1,200 -> 41 tokens, first after 0.50 s, 40 tokens/s"
    assert ending == "ending: 1 text and 3 waiting requests get up to 5 seconds; press Ctrl-C again to end at once"


def test_programs_get_all_events_and_nothing_else():
    stdout, stderr = logged(True, True, *ALL_CALLS)
    assert stderr == ""
    ready, request, health, ending = map(json.loads, stdout.splitlines())
    assert {event.pop("time")[10] for event in (ready, request, health, ending)} == {"T"}
    assert ready == {
        "kind": "ready",
        "url": "http://127.0.0.1:8000",
        **{"model": "mine.pt", "precision": "fp16", "device": "cpu", "slots": 2, "kv_bytes": 75_500_000},
    }
    assert request == {
        "kind": "request",
        **{"method": "POST", "path": "/v1/completions", "status": 200, "seconds": 1.5, "first_text_s": 0.5},
        **{"prompt_tokens": 1200, "new_tokens": 41, "tokens_per_s": 40.0},
    }
    assert (health["path"], health["new_tokens"]) == ("/health", None)
    assert ending == {"kind": "ending", "busy_slots": 1, "waiting_requests": 3}


def test_programs_get_a_bug_and_what_is_not_http():
    records = (
        RequestRecord("GET", "/", 500, 0.1, bug="KeyError at page.py:9"),
        RequestRecord("other", "other", 400, 0.1, hint="this is TLS"),
    )
    stdout, _ = logged(True, True, *(("answered", record) for record in records))
    bug, tls = map(json.loads, stdout.splitlines())
    assert bug["bug"] == "KeyError at page.py:9" and "hint" not in bug
    assert tls["hint"] == "this is TLS" and "bug" not in tls


def test_quiet_silences_what_people_see():
    assert logged(False, True, *ALL_CALLS) == ("", "")


def test_an_idle_server_ends_without_a_word():
    assert logged(False, False, ("ending", Load(0, 2, 0), 5.0)) == ("", "")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (replace(RECORD, new_tokens=1), "POST /v1/completions 200  1,200 -> 1 token, first after 0.50 s, 1.50 s"),
        (replace(RECORD, first_text=None, new_tokens=0), "POST /v1/completions 200  1,200 -> 0 tokens, 1.50 s"),
        (replace(RECORD, seconds=40.5, status=499),
         "POST /v1/completions 499 (client left)  1,200 -> 41 tokens, first after 0.50 s, 1.0 tokens/s"),
        (RequestRecord("GET", "/", 500, 0.1, bug="KeyError at page.py:9"),
         "GET / 500 (bug: KeyError at page.py:9)  0.10 s"),
        (RequestRecord("other", "other", 400, 0.1, hint="this is TLS"), "other other 400 (this is TLS)  0.10 s"),
        (RequestRecord("GET", "/v1/models", 401, 0.004), "GET /v1/models 401  0.00 s"),
    ],
)  # fmt: skip
def test_a_request_in_words(record, words):
    assert in_words(record) == words


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("localhost", "http://localhost:80"),
        ("::1", "http://[::1]:80"),
        ("[::1]", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("192.168.1.5", "http://192.168.1.5:80"),
    ],
)
def test_the_address_is_one_that_this_machine_reaches(host, url):
    assert Address(host, 80).url == url
    _, stderr = logged(False, False, ("ready", Address(host, 80), MODEL, ENGINE))
    assert ("all other addresses" in stderr) == (host in ("0.0.0.0", "::"))


def test_the_example_suits_the_model_and_has_the_place_of_the_key():
    address = Address("127.0.0.1", 80, "$(cat 'my key')")
    assert "/v1/chat/completions" in example(address, MODEL)
    assert " -H \"Authorization: Bearer $(cat 'my key')\" -d " in example(address, MODEL)
    for model in (replace(MODEL, template=None), replace(MODEL, assumes_alpaca=True)):
        assert example(Address("127.0.0.1", 80), model) == (
            "curl http://127.0.0.1:80/v1/completions -H 'Content-Type: application/json' "
            """-d '{"prompt": "Once upon a time"}'"""
        )
