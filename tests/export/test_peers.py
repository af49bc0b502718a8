"""The real transformers and PEFT open what is exported, and read the same tokens, prompts and logits in it."""

import json

import pytest
import torch

from gpt2cli import SamplingConfig, decode, encode, generate
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.exchanges import Exchange, prompt_ids
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.generation.conversation import compose
from gpt2cli.prompts import ALPACA, SEED, PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT_ID
from tests import models
from tests.corpus import HARD, SPECIAL, random_texts
from tests.export.test_round_trips import CONFIG, IDX, adapted, adapter, ckpt, logits_of, model

__all__ = ["adapted", "adapter", "ckpt", "model"]  # fixtures

transformers = pytest.importorskip("transformers")
TEXTS = [*HARD, *SPECIAL, *random_texts(300)]


@pytest.fixture(scope="module")
def folder(ckpt, tmp_path_factory):
    out = tmp_path_factory.mktemp("hf") / "folder"
    export(Request(ModelSpec(ckpt=ckpt), "hf", out))
    return out


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_transformers_opens_the_folder(folder, model):
    opened, told = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    with torch.no_grad():
        torch.testing.assert_close(opened.eval()(IDX).logits, logits_of(model), atol=1e-5, rtol=0)
    assert opened.generation_config.eos_token_id == 50256


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_transformers_opens_it_in_16_bits(ckpt, model, tmp_path, dtype):
    export(Request(ModelSpec(ckpt=ckpt), "hf", tmp_path / "out", dtype))
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert opened.dtype == {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert torch.equal(opened.transformer.wpe.weight, model.wpe.weight.to(opened.dtype))


def test_the_same_greedy_text(tmp_path):
    """64 tokens of the bundled model, which has something to say."""
    export(Request(ModelSpec("tiny"), "hf", tmp_path / "out"))
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    asked = tokenizer("Once upon a time", return_tensors="pt")
    written = opened.generate(**asked, max_new_tokens=64, do_sample=False)[0, asked["input_ids"].shape[1] :]
    ours = generate(
        load_plain("tiny", device="cpu"), "Once upon a time", SamplingConfig(max_new_tokens=64, temperature=0)
    )
    assert tokenizer.decode(written) == ours
    assert len(encode(ours)) > 50


def test_the_same_tokens(theirs):
    for text in TEXTS:
        ids = encode(text)
        assert theirs(text)["input_ids"] == ids, repr(text)
        assert theirs.decode(ids) == decode(ids) == text, repr(text)
    assert len(theirs) == 50257
    assert theirs.eos_token_id == theirs.bos_token_id == 50256
    assert theirs.model_max_length == CONFIG.block_size


def test_the_same_tokens_from_the_files_of_old(folder, tmp_path):
    """`vocab.json` and `merges.txt`, which older programs read."""
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    assert all(theirs(text)["input_ids"] == encode(text) for text in TEXTS)


INSTRUCTIONS = ["Name three {input} colours.", "<b>'Why?'</b>\n\n{% raw %} {{ x }} \\n \"q\""]
CONVERSATION = [
    Exchange("Who are you?", "", "I am a model."),
    Exchange(INSTRUCTIONS[1], "", "A 🌍.\n\n### Response:\nIt's"),
    Exchange("1 + 1?", "", "{{ 2 }}"),
    Exchange("Good.", "", "{instruction}"),
]


def messages_of(exchanges, system=""):
    messages = [{"role": "system", "content": system}] if system else []
    for exchange in exchanges:
        messages.append({"role": "user", "content": exchange.instruction})
        messages.append({"role": "assistant", "content": exchange.output})
    return messages


def tokenizer_of(template, model, directory):
    """transformers' tokenizer of a model with this prompt template."""
    directory.mkdir(exist_ok=True)
    save_checkpoint(model, directory / "a.pt", template=template.to_dict())
    export(Request(ModelSpec(ckpt=directory / "a.pt"), "hf", directory / "out"))
    return transformers.AutoTokenizer.from_pretrained(directory / "out")


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
@pytest.mark.parametrize("system", ["", " \n", "You are {instruction}.", "It's\n\n{% if x %}"])
def test_the_same_prompt(theirs, instruction, system):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f" {instruction}\n"}]
    asked = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert asked == ALPACA.with_system(system).prompt(instruction)
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids == encode(asked)
    messages[0]["role"] = "developer"
    assert theirs.apply_chat_template(messages, tokenize=False) == asked


@pytest.mark.parametrize("stored", ["", "You are 'a' {model}."])
@pytest.mark.parametrize("words", [ALPACA, SEED], ids=["alpaca", "seed"])
def test_each_beginning_of_a_conversation_has_the_same_tokens(model, tmp_path, words, stored):
    template = words.with_system(stored)
    theirs = tokenizer_of(template, model, tmp_path)
    for system in ("", "You are a pirate.\nTalk like one."):
        told = template.with_system(system) if system else template
        messages = messages_of(CONVERSATION, system)
        for n, exchange in enumerate(CONVERSATION):
            asked = messages[: bool(system) + 2 * n + 1]
            prompt = prompt_ids(told, CONVERSATION[:n], exchange)
            assert theirs.apply_chat_template(asked, add_generation_prompt=True)["input_ids"] == prompt
            answered = messages[: bool(system) + 2 * n + 2]
            whole = [*prompt, *encode(exchange.output), END_OF_TEXT_ID]
            assert theirs.apply_chat_template(answered)["input_ids"] == whole
            assert compose(told, CONVERSATION[:n], exchange, 1024, 100) == (prompt, n)


def test_a_template_of_other_words(model, tmp_path):
    template = PromptTemplate(
        with_input="It's {instruction}\\n\n {{ x }} {input}{input} \r\n'",
        without_input="{input}It's {instruction}\\n\n {{ x }} {instruction} \r\n'",
    )
    theirs = tokenizer_of(template, model, tmp_path)
    messages = messages_of(CONVERSATION[:1], "left out, as there is no place for it")
    found = theirs.apply_chat_template(messages, tokenize=False)
    assert found == template.prompt("Who are you?") + "I am a model.<|endoftext|>"
    bare = PromptTemplate("{instruction}{input}", "{instruction}")
    assert tokenizer_of(bare, model, tmp_path / "bare").apply_chat_template(messages, tokenize=False) == (
        "Who are you?I am a model.<|endoftext|>"
    )


def test_no_template_where_the_model_knows_none(tmp_path):
    save_checkpoint(models.small_model(CONFIG), tmp_path / "a.pt")
    export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), "hf", tmp_path / "out"))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template is None


def test_peft_opens_the_adapter(adapter, adapted, folder, tmp_path):
    peft = pytest.importorskip("peft")
    files = export(Request(ModelSpec(ckpt=adapter), "peft", tmp_path / "out"))
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    opened = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(opened(IDX).logits, logits_of(adapted), atol=1e-5, rtol=0)
    assert (tmp_path / "out" / "README.md") in files


def test_peft_finds_the_base_by_itself(adapter, adapted, folder, tmp_path):
    peft = pytest.importorskip("peft")
    export(Request(ModelSpec(str(folder), str(adapter)), "peft", tmp_path / "out"))
    opened = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(opened(IDX).logits, logits_of(adapted), atol=1e-5, rtol=0)


def test_a_base_of_the_hub_goes_by_its_name_there(adapter, tmp_path):
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "gpt2@0123456"}))
    export(Request(ModelSpec(ckpt=adapter), "peft", tmp_path / "out"))
    told = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == ("openai-community/gpt2", "0123456")
    assert 'base_model: "openai-community/gpt2"' in (tmp_path / "out" / "README.md").read_text().replace('["', '"')


@pytest.mark.parametrize(("dtype", "sharded"), [("float32", True), ("float16", True), ("bfloat16", False)])
def test_their_folders_come_in(model, folder, tmp_path, dtype, sharded):
    opened = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    opened.save_pretrained(tmp_path, max_shard_size="1MB" if sharded else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == sharded
    back = load_plain(str(tmp_path), device="cpu")
    expected = models.small_model(CONFIG).to(getattr(torch, dtype)).float()
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), expected.parameters(), strict=True))
