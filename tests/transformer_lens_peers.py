"""Hold the numbers of an explanation to those of TransformerLens, on the same random checkpoint.

    python tests/transformer_lens_peers.py

Needs `transformer-lens` 4. A small random GPT-2 is saved in the Hub's layout. TransformerLens folds the norms' weights
into the matrices that follow and centres what the parts write; log-probabilities and differences of logits stay the
same. Prints a line a comparison: what is compared, how many numbers, the largest of them, and the largest difference.
Exits with 1 if a difference is above BOUND.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}  # read at import

import torch
import transformers
from torch import Tensor
from transformer_lens import ActivationCache, patching
from transformer_lens.model_bridge import TransformerBridge

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.config import ExplainConfig, GPTConfig
from gpt2cli.export.request import Request
from gpt2cli.export.write import export
from gpt2cli.insight.explain import FINDERS
from gpt2cli.insight.question import Question
from gpt2cli.insight.subject import Subject
from gpt2cli.model.gpt import GPT
from gpt2cli.model.part_names import Head, heads_and_mlps
from gpt2cli.tokenizer import encode
from tests.models import small_model

BOUND = 1e-4
SHAPE = GPTConfig(n_layer=3, n_head=4, n_embd=64, block_size=64)
CLEAN, CORRUPTED = "When John and Mary went to the shops, John gave", "When John and Mary went to the shops, Mary gave"
TARGET, FOIL = encode(" Mary")[0], encode(" John")[0]
Pair = tuple[str, Tensor, Tensor]
"""What is compared, our numbers, and the peer's."""


def main() -> int:
    transformers.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    model = small_model(SHAPE)
    subject = Subject(model, Question(tuple(encode(CLEAN)), TARGET, FOIL, tuple(encode(CORRUPTED))))
    peer = as_peer(model)
    logits, cache = peer.run_with_cache(subject.idx)
    print(f"{'compared':<32}{'numbers':>8}{'largest':>12}{'difference':>12}")
    worst = 0.0
    for name, ours, theirs in [
        *lens(subject, cache),
        *attribution(subject, cache),
        *ablations(subject, peer, logits),
        *patchings(subject, peer, cache),
    ]:
        difference = float((ours - theirs).abs().max())
        worst = max(worst, difference)
        print(f"{name:<32}{ours.numel():>8}{float(theirs.abs().max()):>12.4f}{difference:>12.1e}")
    return int(worst > BOUND)


def as_peer(model: GPT) -> Any:
    """TransformerLens' model with the same weights. Biases of values are not folded: they belong to the heads."""
    with tempfile.TemporaryDirectory() as name:
        hub = Path(name) / "hub"
        save_checkpoint(model, Path(name) / "a.pt")
        export(Request(ModelSpec(ckpt=Path(name) / "a.pt"), "hf", hub, "f32"))
        plain = transformers.GPT2LMHeadModel.from_pretrained(hub, attn_implementation="eager").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(hub)
        peer = TransformerBridge.boot_transformers(str(hub), hf_model=plain, tokenizer=tokenizer, device="cpu")
    peer.enable_compatibility_mode(disable_warnings=True, fold_value_biases=False)
    return peer


def found(part: str, subject: Subject, **settings: Any) -> Any:
    """The finding of a part, its last event."""
    *_, last = FINDERS[part](subject, ExplainConfig(**settings))
    return last


def lens(subject: Subject, cache: ActivationCache) -> Iterator[Pair]:
    """The target's log-probability and the divergence from the end, after the embeddings, each attention, each MLP."""
    streams = cache.accumulated_resid(incl_mid=True, apply_ln=True)
    theirs = (streams @ cache.model.W_U + cache.model.b_U).log_softmax(-1)[:, 0]  # (2 L + 1, T, V)
    rows = found("lens", subject).rows
    yield "lens, target", torch.tensor([row.target_logprob for row in rows]), theirs[:, -1, TARGET]
    divergence = (theirs[-1].exp() * (theirs[-1] - theirs)).sum(-1)
    yield "lens, divergence", torch.tensor([[place.kl for place in row.places] for row in rows]), divergence
    likeliest = torch.tensor([[place.probability for place in row.places] for row in rows])
    yield "lens, likeliest token", likeliest, theirs.max(-1).values.exp()


def attribution(subject: Subject, cache: ActivationCache) -> Iterator[Pair]:
    """What heads and other parts add to the difference of the logits."""
    ours = {part.part: part.contribution for part in found("attribution", subject).parts}
    heads = [str(part) for part in heads_and_mlps(subject.model.config) if isinstance(part, Head)]
    results = cache.logit_attrs(cache.stack_head_results(pos_slice=-1), TARGET, FOIL, pos_slice=-1)
    yield "attribution, heads", torch.tensor([ours[name] for name in heads]), results[:, 0]
    stack, labels = cache.decompose_resid(return_labels=True, pos_slice=-1)
    names = [_our_name(label) for label in labels]
    for name in names:
        if name.startswith("attn."):
            ours[name] = sum(ours[f"{name[5:]}.{head}"] for head in range(SHAPE.n_head)) + ours[f"{name}.bias"]
    others = cache.logit_attrs(stack, TARGET, FOIL, pos_slice=-1)
    yield "attribution, other parts", torch.tensor([ours[name] for name in names]), others[:, 0]


def _our_name(label: str) -> str:
    """`embed`, `pos_embed`, `0_attn_out`, `0_mlp_out` as we call them."""
    if label in ("embed", "pos_embed"):
        return {"embed": "embedding", "pos_embed": "position"}[label]
    layer, kind, _ = label.split("_")
    return f"{kind}.{layer}"


def ablations(subject: Subject, peer: Any, whole: Tensor) -> Iterator[Pair]:
    """The change of the difference of logits without each head and each MLP, by TransformerLens' hooks."""

    def replaced(value: Tensor, how: str) -> Tensor:
        return torch.zeros_like(value) if how == "zero" else value.mean(1, keepdim=True).expand_as(value)

    def without_head(value: Tensor, hook: Any, head: int, how: str) -> Tensor:
        value = value.clone()  # (B, T, H, D)
        value[:, :, head] = replaced(value[:, :, head], how)
        return value

    def without_mlp(value: Tensor, hook: Any, how: str) -> Tensor:
        return replaced(value, how)

    for how in ("zero", "mean"):
        theirs = []
        for part in heads_and_mlps(subject.model.config):
            if isinstance(part, Head):
                hook = (f"blocks.{part.layer}.attn.hook_z", partial(without_head, head=part.head, how=how))
            else:
                hook = (f"blocks.{part.layer}.hook_mlp_out", partial(without_mlp, how=how))
            changed = peer.run_with_hooks(subject.idx, fwd_hooks=[hook])
            theirs.append(measure(changed) - measure(whole))
        rows = found("ablation", subject, ablation=how).rows
        yield f"ablation by {how}", torch.tensor([row.change for row in rows]), torch.stack(theirs)


def measure(logits: Tensor) -> Tensor:
    return logits[0, -1, TARGET] - logits[0, -1, FOIL]


def patchings(subject: Subject, peer: Any, cache: ActivationCache) -> Iterator[Pair]:
    """The values of the prompt's pass, put into the other prompt's pass one at a time."""
    other = torch.tensor([subject.question.against])
    ours = found("patching", subject)
    sweeps: dict[str, Callable[..., Tensor]] = {
        "stream": patching.get_act_patch_resid_pre,
        "attn": patching.get_act_patch_attn_out,
        "mlp": patching.get_act_patch_mlp_out,
        "heads": patching.get_act_patch_attn_head_out_all_pos,
    }
    corrupted = measure(peer(other))
    for name, sweep in sweeps.items():
        theirs = (sweep(peer, other, cache, measure) - corrupted) / (measure(peer(subject.idx)) - corrupted)
        yield f"patching, {name}", torch.tensor(getattr(ours, name)), theirs


if __name__ == "__main__":
    sys.exit(main())
