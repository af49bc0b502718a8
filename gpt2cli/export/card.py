"""The model card: the README of an exported model, with the checkpoint's provenance.

A card may be published. It shows only the last part of a path on this machine.
"""

import json
from pathlib import PurePath
from typing import Any

from gpt2cli.config import GPTConfig
from gpt2cli.outputs import CHECKPOINT_SUFFIXES
from gpt2cli.paths import expand
from gpt2cli.prompts import PromptTemplate
from gpt2cli.published import PUBLISHED
from gpt2cli.untrusted import is_name

LONGEST_VALUE = 200
"""Characters of a value in a card's tables."""

_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForCausalLM.from_pretrained("{place}")
{ask}
ids = model.generate(**inputs, max_new_tokens=100, do_sample=True, temperature=0.7, top_k=40)
print(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""
_ASK = 'inputs = tokenizer("Once upon a time", return_tensors="pt")'
_ASK_CHAT = """messages = [{"role": "user", "content": "Name three primary colours."}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")"""
_PEFT = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, "{place}")
```
"""


def hub_name(base: str) -> str:
    """A model's name on the Hub: `openai-community/gpt2` for `gpt2`."""
    name, at, revision = base.partition("@")
    return (PUBLISHED[name].repo if name in PUBLISHED else name) + at + revision


def write_card(
    name: str,
    place: str,
    config: GPTConfig,
    provenance: dict[str, Any],
    template: PromptTemplate | None,
    model: str | None = None,
) -> str:
    """The card of a whole model.

    `place` is the directory or the Hub repository that will hold it. `model` is its name, if it has one already.
    """
    use = _USE.replace("{place}", place).replace("{ask}", _ASK_CHAT if template else _ASK)
    base = _base(provenance) or model
    what = (
        f"A GPT-2 ({config.n_layer} blocks, {config.n_head} heads, width {config.n_embd}, a window of "
        f"{config.block_size} tokens)"
    )
    head = [_front("transformers", base), f"# {_plain(name)}\n", f"{what}{_origin(base, provenance)}.\n"]
    return "\n".join([*head, f"## Use\n\n{use}", *_history(provenance, template)])


def write_adapter_card(
    name: str, place: str, provenance: dict[str, Any], template: PromptTemplate | None, base: str | None
) -> str:
    """The card of a low-rank adapter alone."""
    quoted = json.dumps(_shown(base) if base else "the base's name or directory", ensure_ascii=False)
    use = _PEFT.replace("{place}", place).replace("{base}", quoted)
    head = [_front("peft", base), f"# {_plain(name)}\n", f"A LoRA adapter{_origin(base, provenance)}.\n"]
    return "\n".join([*head, f"## Use\n\n{use}", *_history(provenance, template)])


def _front(library: str, base: str | None) -> str:
    """The block of YAML that the Hub reads. JSON is also YAML."""
    fields: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-generation"}
    if base and (repo := _repository(base)):
        fields["base_model"] = repo
    fields["tags"] = ["gpt2", "gpt2cli"]
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---", ""])


def _repository(base: str) -> str | None:
    """The Hub repository of a base model, or None if the base is a file, a directory or the bundled model."""
    repo = hub_name(base).partition("@")[0]
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")) or repo.endswith(CHECKPOINT_SUFFIXES):
        return None
    return None if expand(repo).exists() else repo


def _base(provenance: dict[str, Any]) -> str | None:
    """The model or checkpoint that training began from, if the checkpoint names it."""
    settings = _table(provenance, "settings")
    if not settings or settings.get("from_scratch"):
        return None
    base = settings.get("ckpt") or settings.get("model") or "gpt2"
    return base if is_name(base) else None


def _origin(base: str | None, provenance: dict[str, Any]) -> str:
    if not _table(provenance, "settings"):
        return f", exported from {_plain(_shown(base))} with gpt2cli" if base else ", exported with gpt2cli"
    return f", fine-tuned from {_plain(_shown(base))} with gpt2cli" if base else ", trained with gpt2cli"


def _history(provenance: dict[str, Any], template: PromptTemplate | None) -> list[str]:
    """The sections about the prompt, the data, the settings and the losses. Unknown ones are left out."""
    parts = []
    if template is not None:
        parts.append(f"## Prompt\n\n{_fenced(_worded(template, template.without_input))}")
        parts.append(f"With an input:\n\n{_fenced(_worded(template, template.with_input))}")
        system = " A system message replaces the text before the first heading." * template.has_place_for_system
        parts.append(f"In a conversation, `<|endoftext|>` and the next prompt follow each answer.{system}\n")
    data, settings = _table(provenance, "data"), _table(provenance, "settings")
    rows: dict[str, Any] = {name: data[name] for name in ("kind", "source", "subset", "fingerprint") if name in data}
    rows |= {name: value for name, value in _table(data, "counts").items() if value}
    train = _table(settings, "train")
    lora = {f"lora_{name}": value for name, value in _table(settings, "lora").items() if name != "learning_rate"}
    for title, table in (("Data", rows), ("Settings", train | lora), ("Losses", _table(provenance, "losses"))):
        shown = {name: value for name, value in table.items() if value is not None}
        if shown:
            lines = [f"| {_plain(name)} | {_plain(value)} |" for name, value in shown.items()]
            parts.append("\n".join([f"## {title}\n", "| | |", "|---|---|", *lines, ""]))
    return parts


def _worded(template: PromptTemplate, text: str) -> str:
    """A text of a template with the names of its fields in braces, and with the system text."""
    return "".join(f"{{{part}}}" if n % 2 else part for n, part in enumerate(template.split(text)))


def _table(provenance: dict[str, Any], name: str) -> dict[str, Any]:
    """An entry that should be a table. An untrusted checkpoint may have anything there."""
    found = provenance.get(name)
    return found if isinstance(found, dict) else {}


def _shown(base: str) -> str:
    return hub_name(base) if _repository(base) else PurePath(base).name


def _plain(value: object) -> str:
    """A value as one line of text, with the characters escaped that Markdown, HTML or a table would interpret."""
    if isinstance(value, float):
        value = f"{value:.6g}"
    text = " ".join(str(value).split())
    if text.startswith(("/", "~", "\\")) or text[1:3] == ":\\":
        text = PurePath(text.replace("\\", "/")).name
    if len(text) > LONGEST_VALUE:
        text = text[:LONGEST_VALUE] + "..."
    return "".join(f"\\{char}" if char in "\\`*_|[]<>#&" else char for char in text)


def _fenced(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
