"""What differs in a second model, such as a fine-tuned one: the next token, the lens, the attribution."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.attribution import contributions
from gpt2cli.insight.events import Event
from gpt2cli.insight.findings import Compared, Difference
from gpt2cli.insight.passes import logits, stream_places
from gpt2cli.insight.subject import Subject, token
from gpt2cli.model.gpt import GPT
from gpt2cli.progress import Note
from gpt2cli.tokenizer import show


def compared(subject: Subject, other: GPT, chosen: Sequence[str], config: ExplainConfig) -> Iterator[Event]:
    """The same question asked of both models, about the target of the first, in those of the `chosen` parts that apply.

    Parts with a number for each layer are left out, with a note, if the models have different numbers of layers or
    heads. Raises CheckpointError and UsageError if the second model does not know the tokens or has a shorter window.
    """
    second = dataclasses.replace(
        subject, model=other, question=dataclasses.replace(subject.question, target=subject.target)
    )
    found: dict[str, tuple[Difference, ...]] = {}
    if "next" in chosen:
        found["next"] = _next(subject, second, config.top)
    for part, measure in BY_LAYER.items():
        if part not in chosen:
            continue
        before, after = measure(subject), measure(second)
        if before.keys() == after.keys():
            found[part] = tuple(Difference(name, before[name], after[name]) for name in before)
        else:
            yield Note(f"{part} is not compared: the models have different numbers of layers or heads")
    yield Compared("the second model", token(subject.target), **found)


def _next(subject: Subject, second: Subject, top: int) -> tuple[Difference, ...]:
    """The probabilities of the likeliest tokens of the first model, then of those that only the second has there."""
    models = (subject, second)
    known = min(each.model.config.vocab_size for each in models)
    before, after = (each.last_logits.softmax(dim=-1)[:known] for each in models)
    ids = dict.fromkeys(id for found in (before, after) for id in found.topk(min(top, known)).indices.tolist())
    return tuple(Difference(show(id), float(before[id]), float(after[id])) for id in ids)


def _contributions(subject: Subject) -> dict[str, float]:
    return {found.part: found.contribution for found in contributions(subject)}


@torch.no_grad()
def _target_logprobs(subject: Subject) -> dict[str, float]:
    """The lens' log-probability of the target at the last place: after the embeddings, each attention and each MLP."""
    logprobs = logits(subject.model, subject.trace.last_streams()).log_softmax(dim=-1)[:, subject.target]
    places = stream_places(subject.model.config.n_layer)
    names = [after if layer is None else f"{after}.{layer}" for layer, after in places]
    return dict(zip(names, logprobs.tolist(), strict=True))


BY_LAYER: dict[str, Callable[[Subject], dict[str, float]]] = {
    "lens": _target_logprobs,
    "attribution": _contributions,
}
"""Parts that have numbers for each layer, by name."""
