"""The part `lens`: what the model would say after each of its parts (nostalgebraist 2020, "interpreting GPT")."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gpt2cli.config import ExplainConfig
from gpt2cli.insight.choices import likeliest
from gpt2cli.insight.events import Advanced, Event
from gpt2cli.insight.findings import Lens, LensPlace, LensRow
from gpt2cli.insight.passes import LOGIT_ROWS, logits, stream_places
from gpt2cli.insight.subject import Subject, token
from gpt2cli.tokenizer import show


def lens(subject: Subject, config: ExplainConfig) -> Iterator[Event]:
    """The last norm and the head, applied to the residual stream after the embeddings, each attention and each MLP."""
    expected = torch.cat([subject.idx[0, 1:], subject.idx.new_tensor([subject.target])])
    last = subject.trace.last_streams()
    places: list[list[LensPlace]] = [[] for _ in last]
    step = max(1, LOGIT_ROWS // len(last))
    starts = range(0, len(expected), step)
    for done, start in enumerate(starts, 1):
        chosen = slice(start, start + step)
        streams = torch.cat(subject.trace.streams(chosen))
        for row, found in zip(places, _places(subject, streams, expected[chosen]), strict=True):
            row += found
        yield Advanced("lens", done, len(starts))
    yield Lens(token(subject.target), tuple(_rows(subject, last, places, config.top)))


@torch.no_grad()
def _places(subject: Subject, streams: Tensor, expected: Tensor) -> Iterator[list[LensPlace]]:
    """For each of S streams (S, P, C), the lens at P places, which the tokens `expected` (P,) follow."""
    logprobs = logits(subject.model, streams).log_softmax(dim=-1)
    best, ids = logprobs.max(dim=-1)
    following = logprobs.gather(2, expected[None, :, None].expand(len(streams), -1, 1))[..., 0]
    final = logprobs[-1]
    kl = ((final - logprobs) * final.exp()).sum(dim=-1)
    for columns in zip(ids.tolist(), best.exp().tolist(), following.exp().tolist(), kl.tolist(), strict=True):
        yield [LensPlace(show(id), id, *numbers) for id, *numbers in zip(*columns, strict=True)]


@torch.no_grad()
def _rows(subject: Subject, streams: Tensor, places: list[list[LensPlace]], top: int) -> Iterator[LensRow]:
    """The rows of the finding. `streams` (S, C) are those at the last place."""
    logprobs = logits(subject.model, streams).log_softmax(dim=-1)
    names = stream_places(subject.model.config.n_layer)
    columns = (names, likeliest(logprobs, top), logprobs[:, subject.target].tolist(), places)
    for (layer, after), choices, logprob, row in zip(*columns, strict=True):
        yield LensRow(layer, after, choices, logprob, row[-1].kl, tuple(row))
