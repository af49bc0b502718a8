"""Activation patching: values of the prompt's pass, put into the pass of another prompt (Vig et al. 2020)."""

import dataclasses
from collections.abc import Iterator

from torch import Tensor

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.events import Advanced, Event
from gpt2cli.insight.findings import Patching
from gpt2cli.insight.passes import Site, Trace
from gpt2cli.insight.subject import Subject, token
from gpt2cli.insight.swaps import Swap, measure_swaps
from gpt2cli.progress import Note
from gpt2cli.tokenizer import decode

SMALLEST_DIFFERENCE = 1e-3
"""The smallest difference of two results that is divided by. Rounding errors are about a hundredth of it."""


def patching(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """How much of the difference between the two prompts' results each value of the prompt's pass restores.

    Yields a note in place of the finding if both prompts give the same result. Raises ValueError for a question without
    a second prompt.
    """
    other = _other_prompt(subject)
    clean, corrupted = (float(each.measure(each.last_logits)) for each in (subject, other))
    if abs(clean - corrupted) < SMALLEST_DIFFERENCE:
        explained = "the target the logit" if subject.foil is None else "target minus foil, in logits,"
        yield Note(
            f"patching left out: both prompts give {explained} {clean:.2f}, so there is no difference to restore"
        )
        return
    values, inputs = _values(subject.trace), other.trace.streams()[::2]
    shared = _shared(subject.question.prompt, other.question.prompt)
    found: dict[Site, list[tuple[float, ...]]] = {site: [] for site in values}
    layers = subject.model.config.n_layer
    for layer in range(layers):
        for done, (site, rows) in enumerate(found.items(), layer * len(found) + 1):
            unchanged = 0 if site is Site.HEADS else shared
            swaps = [Swap(site, index, value) for index, value in enumerate(values[site][layer][0])][unchanged:]
            measured = measure_swaps(subject.model, inputs[layer], layer, swaps, subject.measure)
            restored = ((value - corrupted) / (clean - corrupted) for value in measured)
            rows.append((*[0.0] * unchanged, *restored))
            yield Advanced("patching", done, layers * len(found))
    yield Patching(
        against=decode(list(other.question.prompt)),
        target=token(subject.target),
        foil=subject.foil,
        clean=clean,
        corrupted=corrupted,
        stream=tuple(found[Site.STREAM]),
        attn=tuple(found[Site.ATTENTION]),
        mlp=tuple(found[Site.MLP]),
        heads=tuple(found[Site.HEADS]),
    )


def _other_prompt(subject: Subject) -> Subject:
    """The same question about the second prompt."""
    if subject.question.against is None:
        raise ValueError("patching needs a question with a second prompt")
    question = dataclasses.replace(subject.question, prompt=subject.question.against, target=subject.target)
    return dataclasses.replace(subject, question=question)


def _values(trace: Trace) -> dict[Site, list[Tensor]]:
    """What can be put into another pass: for each site the values of all layers, (1, T, C) or (1, H, T, D)."""
    return {
        Site.STREAM: trace.streams()[:-1:2],
        Site.ATTENTION: trace.attention,
        Site.MLP: trace.mlp,
        Site.HEADS: trace.mixes,
    }


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """The number of first places with equal tokens. Their values are equal too, so patching them changes nothing."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
