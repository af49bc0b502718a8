"""Let lm-evaluation-harness ask a model with and without `gpt2 serve`, and other clients the server.

    python -m venv peers
    peers/bin/pip install -e ".[lm-eval]" "lm_eval[api,hf]==0.4.13" llm==0.36 langchain-openai
    peers/bin/python tests/client_peers.py [--model tiny | --ckpt FILE]

Needs no network. lm-eval's tasks are made here: questions with several choices, responses to predict, questions to
answer, and texts whose perplexity is computed. What its model `gpt2cli` finds is compared with `gpt2 evaluate`, with
its model `hf` on the exported folder, and with `local-completions` and `local-chat-completions` on the server. The
clients `llm` and LangChain must get what gpt2cli.generate and gpt2cli.ask give. Prints a line a comparison: what is
compared, how many numbers or texts, and the largest difference or the number of those that differ. Exits with 1 if one
fails.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli import SamplingConfig, ask, generate
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.generation.conversation import template_of
from gpt2cli.inference.decoder import Decoder
from gpt2cli.prompts import ALPACA
from tests.lm_eval_runs import (
    BOUND,
    LONG,
    SHORT,
    Comparison,
    Run,
    compare,
    output_of,
    run_lm_eval,
    write_tasks,
)
from tests.served_process import serving

BEGINNING, QUESTION = "Once upon a time", "Who are you?"
GREEDY = SamplingConfig(max_new_tokens=24, temperature=0)
REQUESTS = {
    "one at a time": "tokenizer_backend=auto",
    "4 at a time": "tokenizer_backend=remote,num_concurrent=4",
    "8 in a batch": "tokenizer_backend=remote",
    "4 batches of 8": "tokenizer_backend=remote,num_concurrent=4",
    "8 texts in a batch": "tokenized_requests=False",
}
"""How `local-completions` asks, and its arguments for that."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", default="tiny")
    model.add_argument("--ckpt")
    args = parser.parse_args()
    chosen = ("ckpt", args.ckpt) if args.ckpt else ("model", args.model)
    decoder = ModelSpec(**dict([chosen]), device="cpu", precision="fp32").load(for_text=True)
    print(f"{'compared':<84}{'count':>6}{'difference':>12}")
    has_failed = False
    with tempfile.TemporaryDirectory() as name:
        for each in comparisons(decoder, chosen, Path(name)):
            has_failed |= each.fails
            verdict = "  FAILS" if each.fails else ""
            print(f"{each.name:<84}{each.count:>6}{each.difference:>12.1e}{verdict}", flush=True)
    return int(has_failed)


def comparisons(decoder: Decoder, chosen: tuple[str, str], directory: Path) -> Iterator[Comparison]:
    template, window = template_of(decoder), decoder.config.block_size
    write_tasks(directory, template or ALPACA)
    arguments = f"{chosen[0]}={chosen[1]},device=cpu,precision=fp32"
    ours = run_lm_eval(directory, "ours", "gpt2cli", arguments, SHORT + LONG)
    chats = None
    if template:
        chats = run_lm_eval(directory, "chats", "gpt2cli", arguments, ["answers"], "--apply_chat_template")
    options = [f"--{chosen[0]}", chosen[1], "--device", "cpu"]
    yield from evaluations(ours, [*options, "--precision", "fp32"], directory)

    gpt2("export", *options[:2], "--format", "hf", "--dtype", "f32", "--out", str(directory / "hf"))
    # in fp32, its log-softmax over GPT-2's vocabulary is off by 1e-5 a token
    arguments = f"pretrained={directory / 'hf'},dtype=float32,softmax_dtype=float64"
    theirs = run_lm_eval(directory, "theirs", "hf", arguments, SHORT + LONG, "--device", "cpu")
    yield from compare("hf", ours, theirs)
    if chats:
        theirs = run_lm_eval(directory, "hf chats", "hf", arguments, ["answers"], "--apply_chat_template")
        yield from compare("hf, chat template", chats, theirs)

    with serving(directory, *options, "--precision", "fp32", "--offline") as server:
        url = server.url
        name = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
        place = f"model={name},base_url={url}/v1"
        for how, more in REQUESTS.items():
            arguments = f"{place}/completions,max_length={window},{more}"
            size = ["--batch_size", "8" if "8" in how else "1"]
            yield from compare(
                f"local-completions, {how}",
                ours,
                run_lm_eval(directory, how, "local-completions", arguments, SHORT, *size),
            )
        if chats:
            arguments, kind = f"{place}/chat/completions,num_concurrent=4", "local-chat-completions"
            theirs = run_lm_eval(directory, kind, kind, arguments, ["answers"], "--apply_chat_template")
            yield from compare(kind, chats, theirs)
        yield from llm_answers(decoder, url, name, directory)
        yield from langchain_answers(decoder, url, name)


def gpt2(*arguments: str) -> str:
    return output_of([sys.executable, "-m", "gpt2cli", *arguments])


def evaluations(ours: Run, options: list[str], directory: Path) -> Iterator[Comparison]:
    """The losses that `gpt2 evaluate` finds for the same responses and texts."""
    for task, data in {"responses": "records.jsonl", "texts": "plain"}.items():
        source = ["--data", str(directory / data), "--split", "all", "--answers", "0", "--json"]
        report = json.loads(gpt2("evaluate", *options, *source))
        [found], n = report["models"], report["turns"] or report["records"]
        logprobs = [logprob for logprob, _ in ours.likelihoods(task)]
        # after those of the records come those of the blank space before them
        loss = (sum(logprobs[n:]) - sum(logprobs[:n])) / found["tokens"]
        yield Comparison(f"gpt2 evaluate, {task}: loss", found["tokens"], abs(found["loss"] - loss), BOUND)


def llm_answers(decoder: Decoder, url: str, name: str, directory: Path) -> Iterator[Comparison]:
    """simonw's `llm`, with models in extra-openai-models.yaml and without."""
    home = directory / "llm"
    home.mkdir()
    about = {"model_name": name, "api_base": f"{url}/v1"}
    models = [{"model_id": "chatted"} | about, {"model_id": "completed", "completion": True} | about]
    (home / "extra-openai-models.yaml").write_text(json.dumps(models))
    options = ["-o", "temperature", "0", "-o", "max_tokens", str(GREEDY.max_new_tokens)]
    answer, continuation = ask(decoder, QUESTION, GREEDY), generate(decoder, BEGINNING, GREEDY)

    def llm(*arguments: str) -> str:
        return output_of([sys.executable, "-m", "llm", *arguments], LLM_USER_PATH=str(home), OPENAI_API_KEY="none")

    def same(what: str, found: str, expected: str) -> Comparison:
        return Comparison(f"llm, {what}", 1, found.strip() != expected.strip())

    for what, more in {"stream": [], "whole": ["--no-stream"]}.items():
        yield same(f"chat, {what}", llm("-m", "chatted", QUESTION, *options, *more), answer)
        yield same(f"completion, {what}", llm("-m", "completed", BEGINNING, *options, *more), continuation)
    llm("-m", "completed", BEGINNING, *options, "-o", "logprobs", "2")
    [logged] = json.loads(llm("logs", "list", "-n", "1", "--json"))
    response = logged["response_json"]
    written = "".join(piece["text"] for piece in response["logprobs"])
    yield same("completion, log-probabilities", written, continuation)
    yield Comparison("llm, completion, usage", 1, response["usage"]["completion_tokens"] != GREEDY.max_new_tokens)
    yield same("openai endpoint --models", llm("openai", "endpoint", f"{url}/v1", "--models"), name)
    yield same("openai endpoint", llm("openai", "endpoint", f"{url}/v1", QUESTION, "-m", name, *options), answer)


def langchain_answers(decoder: Decoder, url: str, name: str) -> Iterator[Comparison]:
    """LangChain's two classes for OpenAI, whole and as streams."""
    from langchain_openai import ChatOpenAI, OpenAI

    settings: dict[str, Any] = {"model": name, "base_url": f"{url}/v1", "api_key": "none", "temperature": 0}
    chat, completion = ChatOpenAI(**settings, max_tokens=24), OpenAI(**settings, max_tokens=24)
    answer, continuation = ask(decoder, QUESTION, GREEDY), generate(decoder, BEGINNING, GREEDY)
    found = [chat.invoke(QUESTION).content, "".join(str(each.content) for each in chat.stream(QUESTION))]
    yield Comparison("LangChain, chats", 2, sum(each != answer for each in found))
    found = [completion.invoke(BEGINNING), "".join(completion.stream(BEGINNING))]
    yield Comparison("LangChain, completions", 2, sum(each != continuation for each in found))


if __name__ == "__main__":
    sys.exit(main())
