"""The routes of GPT-2's tokenizer, as lm-evaluation-harness uses them."""

from typing import Any, cast

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from gpt2cli import tokenizer
from gpt2cli.config import ServeConfig
from gpt2cli.exchanges import Exchange, prompt_ids
from gpt2cli.prompts import ALPACA
from gpt2cli.serving import tokenizer_routes
from gpt2cli.serving.app import answering
from gpt2cli.serving.engine import Engine
from gpt2cli.serving.refused_error import RefusedError
from gpt2cli.serving.service import Service
from gpt2cli.serving.tokenizer_routes import text_of, tokenizer_info, tokens_of
from tests.serving.served_models import anything, check_answer, described_model

MODEL = described_model()
ODD = ["", " ", "\n\n", "Hello, world", "<|endoftext|>", "a<|endoftext|><|endoftext|>b", "🌍 ﷽", "\x00\x7f", " " * 300]


@pytest.fixture
def client() -> TestClient:
    service = Service(ServeConfig(), lambda record: None)
    service.begin(MODEL, cast(Engine, object()))
    return TestClient(answering(tokenizer_routes.routes(service)))


@pytest.mark.parametrize("text", ODD)
def test_the_routes(client: TestClient, text: str) -> None:
    answer = client.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
    ids = tokenizer.encoding().encode(text, allowed_special="all")
    assert answer == {"count": len(ids), "max_model_len": 256, "tokens": ids, "token_strs": None}
    assert client.post("/detokenize", json={"tokens": ids}).json() == {"prompt": text}
    assert client.get("/tokenizer_info").json() == tokenizer_info(MODEL)


@settings(deadline=None)
@given(st.text(max_size=50) | st.text("a<|endoftext|> \n", max_size=50))
def test_detokenize_inverts_tokenize(text: str) -> None:
    answer = tokens_of({"prompt": text}, MODEL)
    assert answer["tokens"] == tokenizer.encoding().encode(text, allowed_special="all")
    assert text_of({"tokens": answer["tokens"]}, MODEL) == {"prompt": text}


def test_strings_of_the_tokens_are_spelled_as_in_the_vocabulary() -> None:
    answer = tokens_of({"prompt": "Hello world\n🌍<|endoftext|>", "return_token_strs": True}, MODEL)
    assert answer["token_strs"] == ["Hello", "Ġworld", "Ċ", "ðŁ", "Į", "į", "<|endoftext|>"]


def test_a_text_may_be_longer_than_the_window() -> None:
    assert tokens_of({"prompt": " a" * 10_000}, MODEL)["count"] == 10_000


def test_the_chat_template_gives_the_tokens_of_a_chat() -> None:
    template = jinja2.Environment(keep_trailing_newline=True).from_string(tokenizer_info(MODEL)["chat_template"])
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    text = template.render(messages=messages, add_generation_prompt=True)
    ids = prompt_ids(ALPACA, [Exchange("Hi", "", "Hello")], Exchange("Why?"))
    assert tokens_of({"prompt": text}, MODEL)["tokens"] == ids


def test_a_model_of_plain_text_has_no_chat_template() -> None:
    info = tokenizer_info(described_model(None))
    assert "chat_template" not in info
    assert {info[name] for name in ("bos_token", "eos_token", "pad_token", "unk_token")} == {"<|endoftext|>"}
    assert info["model_max_length"] == 256


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"prompt": "a", "return_token_str": True}, "return_token_str"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": "a", "model": "other"}, "model"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [1, 2, 3, 50257]}, "tokens[3]"),
        ("/detokenize", {"tokens": [True]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1], "model": "other"}, "model"),
    ],
)
def test_a_wrong_field_is_refused_by_name(client: TestClient, path: str, body: Any, param: str) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404 if param == "model" else 400, param)


@given(st.sampled_from(["model", "prompt", "tokens", "add_special_tokens", "return_token_strs"]), anything)
def test_any_value_is_answered_or_refused(name: str, value: Any) -> None:
    for read, body in ((tokens_of, {"prompt": "a"}), (text_of, {"tokens": [0]})):
        check(read, body | {name: value}, name)


def check(read: Any, body: dict[str, Any], name: str) -> None:
    try:
        read(body, MODEL)
    except RefusedError as error:
        check_answer(error, name)


def test_while_the_model_is_loaded_there_is_no_answer() -> None:
    service = Service(ServeConfig(), lambda record: None)
    client = TestClient(answering(tokenizer_routes.routes(service)))
    assert client.get("/tokenizer_info").status_code == 503
    assert client.post("/tokenize", json={"prompt": "a"}).status_code == 503
    assert client.post("/detokenize", json={"tokens": []}).status_code == 503
