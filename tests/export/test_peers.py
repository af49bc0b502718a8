"""The real transformers and PEFT open what is exported, and read the same tokens, prompts and logits in it."""

import json

import pytest
import torch

from gpt2cli import SamplingConfig, decode, encode, generate
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.exchanges import Exchange
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.generation.conversation import compose
from gpt2cli.prompts import ALPACA, PromptTemplate
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


@pytest.mark.parametrize("instruction", ["Name three {input} colours.", "<b>'Why?'</b>\n\n{% raw %} {{ x }} \\n \"q\""])
@pytest.mark.parametrize("input", ["", " \n", "red, {instruction}", "line one\nline two"])
def test_the_same_prompt(theirs, instruction, input):
    messages = [{"role": "user", "content": instruction}]
    if input:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": input}]
    asked = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert asked == ALPACA.prompt(instruction, input)
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids == encode(asked)


def test_the_same_conversation(theirs):
    exchanges = [Exchange("Who are you?", "", "I am a model."), Exchange("And who am I?", "", "A person.")]
    messages = []
    for exchange in exchanges:
        messages.append({"role": "user", "content": exchange.instruction})
        messages.append({"role": "assistant", "content": exchange.output})
    messages.append({"role": "user", "content": "Good."})
    prompt, taken = compose(ALPACA, exchanges, Exchange("Good."), block_size=1024, max_new_tokens=100)
    assert taken == 2
    assert theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == prompt


def test_a_template_of_other_words(model, tmp_path):
    template = PromptTemplate(
        with_input="It's {instruction}\\n\n {{ x }} {input}{input} \r\n'", without_input="{instruction}"
    )
    save_checkpoint(model, tmp_path / "a.pt", template=template.to_dict())
    export(Request(ModelSpec(ckpt=tmp_path / "a.pt"), "hf", tmp_path / "out"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for instruction, input in (("{input}", "b"), ("a", "{instruction}")):
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": input}]
        assert theirs.apply_chat_template(messages, tokenize=False) == template.prompt(instruction, input)


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
