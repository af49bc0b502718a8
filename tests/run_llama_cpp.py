"""Let the real llama.cpp open what `gpt2 export --format gguf` writes, and hold it to gpt2cli.

    python tests/run_llama_cpp.py [--python OTHER_PYTHON] [--model tiny | --ckpt FILE] [--texts DIR]

llama-cpp-python is asked in the Python that has it: this one, or the one that --python names. Checked are the tokens
of a hard corpus (and of the .txt files in DIR), 64 greedy tokens in f32, the perplexity in every type (on a tale, or a
window of each file in DIR), and the tokens that the chat template gives a conversation. Prints a line a check; exits
with 1 if any fails.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli import SamplingConfig, encode
from gpt2cli.checkpoints.load import load_plain
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.exchanges import Exchange, prompt_ids
from gpt2cli.export.formats import DTYPES
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.generation.text import TextGeneration
from gpt2cli.prompts import ALPACA
from tests.corpus import HARD, SPECIAL, random_texts
from tests.export.test_round_trips import TALE

N_GREEDY = 64
WORST = {"f32": 1e-4, "f16": 0.001, "bf16": 0.005, "q8_0": 0.005}
"""How far a perplexity may be off, as a share of ours in fp32."""
BEGINNING = "Once upon a time"
SYSTEM, EARLIER, ASKED = "Translate 'it'.", Exchange("the {input}", "", "das\n\nEi"), Exchange("{{ a dog }}")
MESSAGES = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": f"{EARLIER.instruction}\n"},
    {"role": "assistant", "content": EARLIER.output},
    {"role": "user", "content": ASKED.instruction},
]

# what runs in the Python that has llama.cpp: questions on stdin, answers on stdout
ASK = """
import json, sys
import numpy as np
import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

asked = json.load(sys.stdin)
llm = llama_cpp.Llama(asked["path"], n_ctx=0, logits_all=True, verbose=False, n_threads=2,
                      type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32)
answers = {"version": llama_cpp.__version__}
answers["tokens"] = [llm.tokenize(t.encode(), add_bos=False, special=False) for t in asked["texts"]]
answers["special"] = [llm.tokenize(t.encode(), add_bos=False, special=True) for t in asked["special"]]
answers["with_bos"] = llm.tokenize(b"a", special=True)
answers["text"] = [llm.detokenize(ids).decode("utf-8", "replace") for ids in answers["tokens"]]
likely = []
for tale in asked["tales"]:
    llm.reset()
    llm.eval(tale)
    logits = np.asarray(llm.scores[: len(tale) - 1], dtype=np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    likely.extend(logits[np.arange(len(logits)), tale[1:]])
answers["loss"] = -float(np.mean(likely))
llm.reset()
answers["greedy"] = []
for token in llm.generate(asked["beginning"], temp=0.0):
    if len(answers["greedy"]) == asked["n_greedy"] or token == llm.token_eos():
        break
    answers["greedy"].append(token)
answers["eos"] = llm.token_eos()
template = llm.metadata.get("tokenizer.chat_template")
if template:
    ask = Jinja2ChatFormatter(template, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    answers["prompt"] = llm.tokenize(ask(messages=asked["messages"]).prompt.encode(), add_bos=False, special=True)
json.dump(answers, sys.stdout)
"""


def ours(model, tales: list[list[int]]) -> tuple[list[int], float]:
    """Our greedy tokens after the beginning, and our mean loss on the tales."""
    run = TextGeneration.from_text(model, BEGINNING, SamplingConfig(max_new_tokens=N_GREEDY, temperature=0))
    for _ in run:
        pass
    losses = []
    for tale in tales:
        ids = torch.tensor([tale])
        with torch.no_grad():
            losses.append(F.cross_entropy(model(ids)[0, :-1], ids[0, 1:], reduction="none"))
    return run.samples[0].tokens, torch.cat(losses).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--ckpt")
    parser.add_argument("--texts", type=Path)
    args = parser.parse_args()
    texts = [*HARD, *random_texts(3000)]
    books = [file.read_text(encoding="utf-8") for file in sorted(args.texts.glob("*.txt"))] if args.texts else []
    model = load_plain(None if args.ckpt else args.model, ckpt=args.ckpt, device="cpu")
    middles = [text[len(text) // 2 :][:8000] for text in books]
    tales = [encode(text)[: model.config.block_size] for text in middles or [TALE]]
    greedy, loss = ours(model, tales)
    failed = False

    def check(what: str, holds: bool, figure: str) -> None:
        nonlocal failed
        failed |= not holds
        print(f"{'ok  ' if holds else 'FAIL'} {what}: {figure}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        ckpt, path = Path(name) / "a.pt", Path(name) / "a.gguf"
        save_checkpoint(model, ckpt, template=ALPACA.to_dict())
        for dtype in DTYPES:
            export(Request(ModelSpec(ckpt=ckpt), "gguf", path, dtype, force=True))
            asked = {
                "path": str(path),
                "texts": [*texts, *(book[:200_000] for book in books)] if dtype == "f32" else [],
            }
            asked |= {"special": SPECIAL, "tales": tales, "beginning": encode(BEGINNING)}
            asked |= {"n_greedy": N_GREEDY, "messages": MESSAGES}
            done = subprocess.run([args.python, "-c", ASK], input=json.dumps(asked), capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"llama.cpp does not open {dtype}:\n{done.stderr[-3000:]}")
            theirs = json.loads(done.stdout)
            if dtype == "f32":
                print(f"llama-cpp-python {theirs['version']}, {args.ckpt or args.model}")
                check_text(check, theirs, asked["texts"], len(books), greedy)
            off = math.exp(theirs["loss"] - loss) - 1
            figures = f"{math.exp(theirs['loss']):.4f}, ours in fp32 {math.exp(loss):.4f} ({off:+.4%})"
            check(f"{dtype}: perplexity on {sum(map(len, tales))} tokens", abs(off) <= WORST[dtype], figures)
            same = next(
                (n for n, (a, b) in enumerate(zip(theirs["greedy"], greedy, strict=False)) if a != b), len(greedy)
            )
            print(f"     {dtype}: {same} of {len(greedy)} greedy tokens the same, {path.stat().st_size / 1e6:.1f} MB")
    sys.exit(failed)


def check_text(check, theirs: dict, texts: list[str], n_books: int, greedy: list[int]) -> None:
    """What does not depend on the type of the weights: tokens and prompts; and the greedy text of f32."""
    wrong = [
        text for text, ids in zip(texts, theirs["tokens"], strict=True) if ids != encode(text, allow_special=False)
    ]
    count = sum(map(len, theirs["tokens"]))
    check(
        "tokens of plain text", not wrong, f"{len(texts)} texts, {count} tokens, {len(wrong)} differ {wrong[:2]!r:.200}"
    )
    wrong = [text for text, ids in zip(SPECIAL, theirs["special"], strict=True) if ids != encode(text)]
    check("tokens with <|endoftext|>", not wrong, f"{len(SPECIAL)} texts, {len(wrong)} differ")
    back = zip(texts[: len(texts) - n_books], theirs["text"], strict=False)  # llama-cpp-python drops long tokens
    wrong = [text for text, again in back if text != again]
    check("tokens back to text", not wrong, f"{len(wrong)} differ {wrong[:2]!r:.200}")
    check("no token put first, and the end known", theirs["with_bos"] == encode("a") and theirs["eos"] == 50256, "")
    check(f"f32: {len(greedy)} greedy tokens", theirs["greedy"] == greedy, repr(theirs["greedy"] == greedy))
    asked = prompt_ids(ALPACA.with_system(SYSTEM), [EARLIER], ASKED)
    check("the prompt of the chat template", theirs.get("prompt") == asked, f"{len(asked)} tokens")


if __name__ == "__main__":
    main()
