"""The model `gpt2cli` of lm-evaluation-harness, which needs no export:

    lm_eval run --model gpt2cli --model_args ckpt=finetuned.pt --tasks arc_easy

lm-eval finds it by the entry point in pyproject.toml. Version 0.4.13 does not read entry points yet. For it, the module
can be run with the arguments of `lm_eval`:

    python -m gpt2cli.evaluation.lm_harness run --model gpt2cli --model_args ckpt=finetuned.pt --tasks arc_easy

Contexts are cut, texts divided into windows, and answers ended as by lm-eval's model `hf`.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
from tqdm import tqdm

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.config import SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.evaluation.answers import continue_prompts
from gpt2cli.evaluation.continuations import Pair, score_pairs
from gpt2cli.export.chat_template import as_jinja
from gpt2cli.generation.conversation import template_of
from gpt2cli.prompts import PromptTemplate, check_place_for_system
from gpt2cli.tokenizer import END_OF_TEXT, END_OF_TEXT_ID, encode

DEFAULT_DEVICE = "cuda:0"
"""What lm-eval's command gives if the user names no device, also on machines without it."""


@register_model("gpt2cli")
class HarnessModel(TemplateLM):  # type: ignore[misc] # lm-eval has no types
    """A checkpoint or a published model, as lm-eval asks it.

    model, ckpt, device, precision, threads, offline   as in `ModelSpec`
    batch_size, max_batch_size                         not used: a forward pass has a fixed number of tokens, as in
                                                       `gpt2 evaluate`, and no result depends on it
    """

    def __init__(
        self,
        model: str | None = None,
        ckpt: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        offline: bool = False,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self._decoder = ModelSpec(model, ckpt, device, precision, offline, threads).load(for_text=True)
        self._device = torch.device(self._decoder.device)
        self.max_length = self._decoder.config.block_size
        self.max_gen_toks = 256

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "HarnessModel":
        """The model with these arguments. They take precedence over lm-eval's options, such as `--device`."""
        options = {name: value for name, value in (additional_config or {}).items() if value is not None}
        if options.get("device") == DEFAULT_DEVICE:
            del options["device"]  # `auto` finds the GPU if there is one
        return cls(**options | arg_dict)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> "HarnessModel":
        """As `create_from_arg_obj`, for arguments such as `ckpt=finetuned.pt,precision=fp32`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def get_model_info(self) -> dict[str, str]:
        """What lm-eval writes into its results besides the arguments."""
        return {"model_dtype": self._decoder.precision}

    @property
    def eot_token_id(self) -> int:
        """The token before a text without a context."""
        return END_OF_TEXT_ID

    @property
    def tokenizer_name(self) -> str:
        """A part of the names of lm-eval's caches. The prompts in them depend on the template."""
        return "gpt2"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """The ids of a text, in which `<|endoftext|>` is the special token. GPT-2 puts none before a text."""
        return encode(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        """The answer to each request: a key for lm-eval's cache or None, a context, and its continuation."""
        answers = [(0.0, False)] * len(requests)
        pairs = [Pair(context, continuation) for _, context, continuation in requests]
        with tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:
            for i, likelihood in score_pairs(self._decoder, pairs):
                answers[i] = (likelihood.logprob, likelihood.is_greedy)
                if requests[i][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], answers[i])
                bar.update()
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each text, in windows as of `hf`: each token is predicted once."""
        texts = [request.args[0] for request in requests]
        windows = [
            (i, None, *make_disjoint_window(window))
            for i, text in enumerate(texts)
            for window in get_rolling_token_windows(encode(text), END_OF_TEXT_ID, self.max_length, context_len=1)
        ]
        answers = [0.0] * len(texts)
        likelihoods = self._loglikelihood_tokens([window[1:] for window in windows], disable_tqdm)
        for (i, *_), (logprob, _) in zip(windows, likelihoods, strict=True):
            answers[i] += logprob
        for text, answer in zip(texts, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The continuation of each text. Request i has the seed `--seed` + i, or its own `seed` + i."""
        by_settings: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            by_settings.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
        answers = [""] * len(requests)
        with tqdm(total=len(requests), desc="Running generate_until requests", disable=disable_tqdm) as bar:
            for chosen in by_settings.values():
                sampling = sampling_from(requests[chosen[0]].args[1], self.max_gen_toks)
                prompts = {i: self._prompt(requests[i].args[0], sampling.max_new_tokens) for i in chosen}
                for i, sample in continue_prompts(self._decoder, prompts, sampling):
                    answers[i] = sample.text
                    self.cache_hook.add_partial("generate_until", requests[i].args, sample.text)
                    bar.update()
        return answers

    def _prompt(self, text: str, max_new_tokens: int) -> list[int]:
        """The end of a text that leaves the window room for the new tokens, as of `hf`.

        If all new tokens do not fit into the window, which `hf` refuses, the prompt can have half of it.
        """
        room = self.max_length - max_new_tokens
        return encode(text)[-(room if room > 0 else max(1, self.max_length // 2)) :] or [END_OF_TEXT_ID]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages in the checkpoint's prompt template: the text of `chat_template`.

        Without `add_generation_prompt`, the last message is the beginning of an answer. Raises UsageError for a system
        message that the template has no place for.
        """
        template, text = self._template(), ""
        for message in chat_history:
            content = message["content"].strip()
            if message["role"] == "system" and content:
                template = check_place_for_system(template).with_system(content)
            elif message["role"] == "assistant":
                text += content + END_OF_TEXT
            else:
                text += template.prompt(content)
        return text if add_generation_prompt else text.removesuffix(END_OF_TEXT)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The prompt template in Jinja, for lm-eval's results. Raises UsageError for the name of another."""
        if isinstance(chat_template, str):
            raise UsageError("a checkpoint has one chat template: give --apply_chat_template without a name")
        return as_jinja(self._template()) if chat_template else ""

    def _template(self) -> PromptTemplate:
        template = template_of(self._decoder)
        if template is None:
            raise UsageError("the model was trained on plain text and has no template: leave out --apply_chat_template")
        return template


def sampling_from(settings: dict[str, Any], max_gen_toks: int) -> SamplingConfig:
    """The sampling that a task asks for. Without a temperature, the likeliest token is always taken.

    `top_k` is 0 unless it is given: all tokens can be drawn. Raises UsageError for a setting that is not supported.
    """
    given = normalize_gen_kwargs(settings, max_gen_toks)
    del given["do_sample"]  # without it, the temperature is 0
    if given.get("num_beams") == 1:  # several tasks ask for this, which is no beam search
        del given["num_beams"]
    stop = tuple(text for text in given.pop("until") if text)
    sampling = {
        "max_new_tokens": given.pop("max_gen_toks"),
        "temperature": given.pop("temperature", 0.0),
        "seed": given.pop("seed", torch.initial_seed()),  # lm-eval has set it to --seed
        "top_k": given.pop("top_k", 0),
    }
    sampling |= {name: given.pop(name) for name in ("top_p", "min_p", "repetition_penalty") if name in given}
    if given:
        raise UsageError(f"the generation setting {', '.join(given)} is not supported: leave it out")
    return SamplingConfig(**sampling, stop=(*stop, END_OF_TEXT))


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
