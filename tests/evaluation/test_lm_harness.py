"""The model of lm-evaluation-harness, as the harness calls it.

tests/client_peers.py runs the harness itself, and compares with its model `hf`.
"""

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from transformers import AutoTokenizer

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.errors import UsageError
from gpt2cli.evaluation.continuations import Pair, score_pairs
from gpt2cli.evaluation.lm_harness import DEFAULT_DEVICE, HarnessModel, sampling_from
from gpt2cli.exchanges import Exchange, prompt_ids
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.generation.conversation import template_of
from gpt2cli.generation.logprobs import prompt_logprobs
from gpt2cli.generation.text import generate
from gpt2cli.tokenizer import END_OF_TEXT, END_OF_TEXT_ID, encode
from tests.models import SMALL, small_model, tiny

GREEDY = {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 12}
SAMPLED = {"until": [], "do_sample": True, "temperature": 0.9, "max_gen_toks": 12, "seed": 5}
CUTS = {"top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}
QUESTION = "What is the opposite of this word?"
MESSAGES = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": " hot\n"},
    {"role": "assistant", "content": "cold"},
    {"role": "user", "content": "{instruction} of {{ a }} 'dog'"},
]


@pytest.fixture(scope="module")
def model() -> HarnessModel:
    return HarnessModel(model="tiny", precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> HarnessModel:
    """A model with a short window."""
    path = tmp_path_factory.mktemp("small") / "small.pt"
    save_checkpoint(small_model(), path)
    return HarnessModel(ckpt=str(path), precision="fp32", device="cpu")


def asked(kind: Any, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]


def likelihood(context: list[int], continuation: list[int]) -> tuple[float, bool]:
    [(_, found)] = score_pairs(tiny("fp32"), [Pair(context, continuation)])
    return pytest.approx(found.logprob, abs=1e-4), found.is_greedy


def test_the_harness_knows_its_name() -> None:
    assert get_model("gpt2cli") is HarnessModel


def test_the_entry_point_names_it() -> None:
    settings = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    name = settings.partition('[project.entry-points."lm_eval.models"]\ngpt2cli = "')[2].partition('"')[0]
    assert resolve_name(name) is HarnessModel


def test_choices(model: HarnessModel) -> None:
    texts = [("Hot and", " cold"), ("Hot and", " cold is the"), ("The cat", " sat"), ("Hot and", " warm")]
    found = model.loglikelihood(asked("loglikelihood", *texts), disable_tqdm=True)
    assert found == [likelihood(encode(context), encode(choice)) for context, choice in texts]


def test_blanks_at_the_end_of_a_context_belong_to_the_continuation(model: HarnessModel) -> None:
    [found] = model.loglikelihood(asked("loglikelihood", ("Hot and  ", "cold")), disable_tqdm=True)
    assert found == likelihood(encode("Hot and"), encode("  cold"))


def test_an_end_of_text_precedes_a_text_without_a_context(model: HarnessModel) -> None:
    texts = asked("loglikelihood", ("", "Once upon"), ("", f"{END_OF_TEXT}Once upon"))
    assert model.loglikelihood(texts, disable_tqdm=True) == [likelihood([END_OF_TEXT_ID], encode("Once upon"))] * 2


def test_a_text_that_fits_is_read_once(model: HarnessModel) -> None:
    text = "Once upon a time there was a king."
    [found] = model.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)), disable_tqdm=True)
    entries = prompt_logprobs(tiny("fp32"), [END_OF_TEXT_ID, *encode(text)])
    assert found == pytest.approx(sum(entry.logprob for entry in entries), abs=1e-4)
    assert model.loglikelihood_rolling(asked("loglikelihood_rolling", ("",)), disable_tqdm=True) == [0.0]


def test_each_token_of_a_long_text_is_predicted_once(small: HarnessModel) -> None:
    """The windows do not overlap, but the last one is moved back until it is full."""
    window, long = SMALL.block_size, "a b c d e f g h " * 10
    ids = [END_OF_TEXT_ID, *encode(long)]
    pairs = [Pair(ids[start : start + 1], ids[start + 1 : start + 1 + window]) for start in (0, window)]
    pairs.append(Pair(ids[-window - 1 : 2 * window + 1], ids[2 * window + 1 :]))
    expected = sum(likelihood.logprob for _, likelihood in score_pairs(small._decoder, pairs))
    assert sum(len(pair.continuation) for pair in pairs) == len(ids) - 1
    [found, short] = small.loglikelihood_rolling(asked("loglikelihood_rolling", (long,), ("a b",)), disable_tqdm=True)
    assert found == pytest.approx(expected, abs=1e-4)
    [(_, alone)] = score_pairs(small._decoder, [Pair([END_OF_TEXT_ID], encode("a b"))])
    assert short == pytest.approx(alone.logprob, abs=1e-4)


def test_greedy_answers_are_those_of_generate(model: HarnessModel) -> None:
    prompts = ["Once upon a time", QUESTION, "The cat"]
    found = model.generate_until(asked("generate_until", *[(prompt, GREEDY) for prompt in prompts]), disable_tqdm=True)
    sampling = SamplingConfig(max_new_tokens=12, temperature=0, stop=("\n\n",))
    assert found == [generate(tiny("fp32"), prompt, sampling) for prompt in prompts]


def test_an_answer_ends_before_each_of_the_stop_texts(model: HarnessModel) -> None:
    [whole] = model.generate_until(asked("generate_until", ("Once upon a time", GREEDY)), disable_tqdm=True)
    stop = whole[5:9]
    settings = [GREEDY | {"until": until} for until in (stop, [stop], ["", stop, whole[-3:]])]
    found = model.generate_until(asked("generate_until", *[("Once upon a time", each) for each in settings]), True)
    assert found == [whole[: whole.index(stop)]] * 3


def test_a_sampled_answer_depends_on_its_number_only(model: HarnessModel) -> None:
    prompts = ["Once upon a time", "Once upon a time", "The cat"]
    found = model.generate_until(asked("generate_until", *[(prompt, SAMPLED) for prompt in prompts]), disable_tqdm=True)
    assert found[0] != found[1]
    for i, prompt in enumerate(prompts):
        sampling = SamplingConfig(max_new_tokens=12, temperature=0.9, top_k=0, seed=5 + i)
        assert found[i] == generate(tiny("fp32"), prompt, sampling)


def test_a_prompt_leaves_room_for_the_answer(small: HarnessModel) -> None:
    window, text = SMALL.block_size, "a b c d e f g h " * 10
    ids = encode(text)
    assert small._prompt(text, 7) == ids[-(window - 7) :]
    assert small._prompt(text, window - 1) == ids[-1:]
    assert small._prompt(text, 5 * window) == ids[-(window // 2) :]
    assert small._prompt("", 7) == [END_OF_TEXT_ID]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"temperature": 0}),
        ({"do_sample": False, "temperature": 1}, {"temperature": 0}),
        ({"max_new_tokens": 3, "temperature": 0.5, "num_beams": 1}, {"max_new_tokens": 3, "temperature": 0.5}),
        (
            {"do_sample": True, "temperature": 1, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1},
            {
                "max_new_tokens": 256,
                "temperature": 1,
                "top_p": 0.9,
                "top_k": 5,
                "min_p": 0.1,
                "repetition_penalty": 1.1,
            },
        ),
    ],
)
def test_settings(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    found = sampling_from(settings | {"seed": 3}, 256)
    assert found == SamplingConfig(**{"max_new_tokens": 256, "top_k": 0, "seed": 3, "stop": (END_OF_TEXT,)} | expected)


@pytest.mark.parametrize("settings", [{"num_beams": 4}, {"length_penalty": 1.0}, {"top_p": 2.0}, {"top_k": -1}])
def test_settings_that_are_not_supported_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        sampling_from(settings, 256)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer that is exported for transformers, with the chat template."""
    out = tmp_path_factory.mktemp("hub") / "tiny"
    export(Request(ModelSpec("tiny"), "hf", out, "f32"))
    return AutoTokenizer.from_pretrained(out)


@pytest.mark.parametrize("messages", [MESSAGES, MESSAGES[1:], MESSAGES[3:]])
def test_a_chat_is_the_text_of_the_exported_template(
    model: HarnessModel, tokenizer: Any, messages: list[dict[str, str]]
) -> None:
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert model.apply_chat_template(messages) == expected
    assert model.chat_template(True) == tokenizer.chat_template
    assert model.tok_encode(expected) == tokenizer.encode(expected)


def test_the_beginning_of_an_answer_is_continued(model: HarnessModel, tokenizer: Any) -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "The opposite"}]
    expected = tokenizer.apply_chat_template(begun, tokenize=False, continue_final_message=True)
    assert model.apply_chat_template(begun, add_generation_prompt=False) == expected


def test_a_chat_has_the_tokens_of_training(model: HarnessModel) -> None:
    template = template_of(tiny("fp32"))
    assert template is not None
    ids = prompt_ids(template, [Exchange("hot", "", "cold")], Exchange(MESSAGES[3]["content"]))
    assert model.tok_encode(model.apply_chat_template(MESSAGES[1:])) == ids


def test_a_named_chat_template_is_refused(model: HarnessModel) -> None:
    with pytest.raises(UsageError, match="without a name"):
        model.chat_template("other")
    assert model.chat_template(False) == ""


def test_a_model_of_plain_text_has_no_chat_template(tmp_path: Path) -> None:
    model = small_model(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16))
    save_checkpoint(model, tmp_path / "a.pt", provenance={"data": {"kind": "text"}})
    harness = HarnessModel(ckpt=str(tmp_path / "a.pt"), device="cpu")
    with pytest.raises(UsageError, match="--apply_chat_template"):
        harness.apply_chat_template(MESSAGES)


def test_its_arguments_come_before_the_options_of_the_harness() -> None:
    options = {"device": "no-device", "batch_size": "auto", "max_batch_size": None}
    model = HarnessModel.create_from_arg_string("model=tiny,device=cpu,precision=fp32,threads=1", options)
    assert model._decoder.threads == 1
    assert model.get_model_info() == {"model_dtype": "fp32"}
    HarnessModel.create_from_arg_obj({"model": "tiny"}, {"device": DEFAULT_DEVICE})  # also where it is not there
    with pytest.raises(UsageError, match="no-device"):
        HarnessModel.create_from_arg_obj({"model": "tiny"}, options)


def test_unknown_arguments_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="pretrained"):
        HarnessModel.create_from_arg_string("pretrained=tiny")
