"""POST /tokenize and /detokenize, and GET /tokenizer_info: GPT-2's tokenizer for clients that have none.

The fields are those of vLLM's server. lm-evaluation-harness uses them, and needs no network then:

    https://github.com/EleutherAI/lm-evaluation-harness/blob/main/lm_eval/utils.py
"""

from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gpt2cli import tokenizer
from gpt2cli.export.tokenizer_config import tokenizer_config
from gpt2cli.serving.bodies import read_json
from gpt2cli.serving.field_readers import Body, check_names, flag, read_field, text, token_ids
from gpt2cli.serving.served_model import ServedModel
from gpt2cli.serving.service import Service


def routes(service: Service) -> list[Route]:
    async def tokenize(request: Request) -> JSONResponse:
        model, _ = service.loaded()
        return JSONResponse(await read_json(request, lambda body: tokens_of(body, model)))

    async def detokenize(request: Request) -> JSONResponse:
        model, _ = service.loaded()
        return JSONResponse(await read_json(request, lambda body: text_of(body, model)))

    async def info(request: Request) -> JSONResponse:
        model, _ = service.loaded()
        return JSONResponse(tokenizer_info(model))

    return [
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
        Route("/tokenizer_info", info),
    ]


def tokens_of(body: Body, model: ServedModel) -> dict[str, Any]:
    """The answer of /tokenize. `<|endoftext|>` is the special token. `token_strs` are spelled as in vocab.json.

    Raises RefusedError for a wrong field.
    """
    check_names(body, ("model", "prompt", "add_special_tokens", "return_token_strs"), {})
    model.check_name(read_field(body, "model", text, model.name))
    read_field(body, "add_special_tokens", flag, True)  # GPT-2's tokenizer adds none
    with_strings = read_field(body, "return_token_strs", flag, False)
    ids = tokenizer.encode(text(body.get("prompt"), "prompt"))
    strings = [_spellings()[token] for token in ids] if with_strings else None
    return {"count": len(ids), "max_model_len": model.config.block_size, "tokens": ids, "token_strs": strings}


def text_of(body: Body, model: ServedModel) -> dict[str, Any]:
    """The answer of /detokenize. Bytes that are not UTF-8 become U+FFFD. Raises RefusedError for a wrong field."""
    check_names(body, ("model", "tokens"), {})
    model.check_name(read_field(body, "model", text, model.name))
    return {"prompt": tokenizer.decode([*token_ids(body.get("tokens"), "tokens")])}


def tokenizer_info(model: ServedModel) -> dict[str, Any]:
    """The answer of /tokenizer_info: the content of transformers' `tokenizer_config.json`, and a token for padding."""
    return tokenizer_config(model.config.block_size, model.template) | {"pad_token": tokenizer.END_OF_TEXT}


@cache
def _spellings() -> dict[int, str]:
    return {token: spelling for spelling, token in tokenizer.vocabulary().items()}
