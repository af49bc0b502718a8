"""What lm-evaluation-harness reads from the answers to its requests: see LocalCompletionsAPI in lm_eval.

It sends contexts with their continuations as one prompt and asks for the log-probabilities of all tokens. It trusts
that these are there, and would else report numbers that look like those of a bad model.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gpt2cli.evaluation.continuations import Pair, score_pairs
from gpt2cli.tokenizer import END_OF_TEXT, END_OF_TEXT_ID, encode
from tests.models import tiny
from tests.serving.live_server import live_server

CONTEXT = "The capital of France is"
PAIRS = [
    *(Pair(encode(CONTEXT), encode(city)) for city in (" Paris", " London", " the city of Paris, in the north")),
    Pair([END_OF_TEXT_ID], encode("Once upon a time")),
    Pair(
        encode("### Instruction:\nWhat is the opposite of this word?\n\n### Input:\nhot"), encode("\n\n### Response:")
    ),
    Pair(
        encode("### Instruction:\nWhat is the opposite of hot?\n\n### Response:\nIt"), encode(" is cold.")
    ),  # ends here
    Pair(encode("naïve “café” 日本"), encode("語 ❤")),  # with tokens that are parts of characters
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with live_server(tiny("fp32"), slots=3) as server, httpx.Client(base_url=server.url, timeout=300) as client:
        yield client


def choices(client: httpx.Client, prompt: Any) -> list[dict[str, Any]]:
    """The choices in the order of their indices, for a request with the fields that lm-eval sends."""
    fields = {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234}
    answer = client.post("/v1/completions", json=fields | {"echo": True})
    assert answer.status_code == 200, answer.text
    return sorted(answer.json()["choices"], key=lambda choice: choice["index"])


def parsed(choice: dict[str, Any], context: int) -> tuple[float, bool]:
    """The log-likelihood after so many tokens, and whether it is of greedy decoding, as lm-eval takes them out."""
    numbers = choice["logprobs"]["token_logprobs"][context:-1]
    top = choice["logprobs"]["top_logprobs"][context:-1]
    return sum(numbers), all(number == max(each.values()) for number, each in zip(numbers, top, strict=True))


def ids_of(pairs: list[Pair]) -> list[list[int]]:
    return [[*pair.context, *pair.continuation] for pair in pairs]


def test_the_log_likelihoods_are_those_of_an_evaluation(client: httpx.Client) -> None:
    expected = dict(score_pairs(tiny("fp32"), PAIRS))
    for i, choice in enumerate(choices(client, ids_of(PAIRS))):
        logprob, is_greedy = parsed(choice, len(PAIRS[i].context))
        assert logprob == pytest.approx(expected[i].logprob, abs=1e-4)
        assert is_greedy == expected[i].is_greedy


def test_a_greedy_continuation_is_known_as_one(client: httpx.Client) -> None:
    fields = {"prompt": CONTEXT, "max_tokens": 8, "temperature": 0, "logprobs": 0, "stop": [], "seed": 1234}
    answer = client.post("/v1/completions", json=fields).json()["choices"][0]["text"]
    pair = Pair(encode(CONTEXT), encode(CONTEXT + answer)[len(encode(CONTEXT)) :])
    [choice] = choices(client, ids_of([pair]))
    assert parsed(choice, len(pair.context))[1]
    assert not parsed(choice, 1)[1]


def test_a_batch_has_the_numbers_of_single_requests(client: httpx.Client) -> None:
    singles = [choices(client, [ids])[0]["logprobs"] for ids in ids_of(PAIRS)]
    assert [choice["logprobs"] for choice in choices(client, ids_of(PAIRS))] == singles


def test_a_text_has_the_numbers_of_its_tokens(client: httpx.Client) -> None:
    text = CONTEXT + " Paris" + END_OF_TEXT
    [by_text], [by_ids] = choices(client, text), choices(client, encode(text))
    assert by_text["logprobs"] == by_ids["logprobs"]
    assert [choice["logprobs"] for choice in choices(client, [text, text])] == [by_ids["logprobs"]] * 2


@pytest.mark.parametrize("ids", ids_of(PAIRS))
def test_there_is_an_entry_for_each_token_and_one_more(client: httpx.Client, ids: list[int]) -> None:
    [choice] = choices(client, [ids])
    found = choice["logprobs"]
    assert {len(part) for part in found.values()} == {len(ids) + 1}
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    for token, number, top in list(zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True))[
        1:
    ]:
        assert top[token] == number
        assert 1 <= len(top) <= 2


def test_a_prompt_may_fill_the_window(client: httpx.Client) -> None:
    window = tiny("fp32").config.block_size
    ids = encode("A cat. " * window)[:window]
    [choice] = choices(client, [ids])
    expected = dict(score_pairs(tiny("fp32"), [Pair(ids[:1], ids[1:])]))
    assert parsed(choice, 1)[0] == pytest.approx(expected[0].logprob, abs=1e-3)
    longer = client.post("/v1/completions", json={"prompt": [[*ids, 1]], "max_tokens": 1, "echo": True, "logprobs": 1})
    assert longer.status_code == 400
    assert longer.json()["error"]["code"] == "context_length_exceeded"


def test_its_tokenizer_needs_no_network(client: httpx.Client) -> None:
    """See check_remote_tokenizer_support and RemoteTokenizer in lm_eval."""
    about = client.get("/tokenizer_info").json()
    assert (about["eos_token"], about["bos_token"]) == (END_OF_TEXT, END_OF_TEXT)
    text = f"{CONTEXT} {END_OF_TEXT}"
    ids = client.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert ids == encode(text)
    assert client.post("/detokenize", json={"tokens": ids}).json()["prompt"] == text
