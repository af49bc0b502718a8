"""Scores a model's predictions of given texts: the loss of each token, and whether it was the likeliest one."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpt2cli.data.batches import make_rows
from gpt2cli.data.dataset import TokenDataset, from_sequences
from gpt2cli.errors import DivergedError
from gpt2cli.generation.decode import check_token
from gpt2cli.inference.decoder import Decoder
from gpt2cli.model.device import LOGIT_ROWS
from gpt2cli.tokenizer import END_OF_TEXT_ID

CHUNK = 256
"""Tokens of plain text in one unit of the bootstrap, which needs units that are nearly independent of each other."""
PASSES = 4
"""Forward passes in a portion. An interrupted evaluation continues after the last complete portion."""


class RecordSource:
    """Sequences of records to predict. The tokens of a record, or of a conversation, are one unit of the bootstrap.

    lengths  the number of tokens in each sequence
    units    the number of units
    """

    def __init__(self, data: TokenDataset, of: Sequence[int], units: int) -> None:
        """Sequence i of the data belongs to record `of[i]`, of `units` records."""
        self._data, self._of = data, list(of)
        self.lengths: list[int] = data.lengths.tolist()
        self.units = units

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of the sequences and their targets."""
        return self._data.fingerprint()

    def part(self, chosen: range) -> tuple[TokenDataset, list[Tensor]]:
        """The sequences with these indices, and for each of them the unit of each target."""
        data = self._data.select(chosen)
        n_targets: list[int] = data.target_counts.tolist()
        return data, [torch.full((n,), self._of[i]) for i, n in zip(chosen, n_targets, strict=True)]


class _Window(NamedTuple):
    """The tokens from `start` to `stop` of a text. Its targets begin at `scored`; the text's first unit is `unit`."""

    text: int
    start: int
    stop: int
    scored: int
    unit: int


class TextSource:
    """As RecordSource, for texts: windows that move over each text in steps of `stride` tokens.

    The units are chunks of text. An end-of-text token precedes each text.

    Every token of a text is predicted once, from the tokens before it in its window. These are at least
    `block_size - stride`, if the text has as many. The windows are those of the recipe in transformers' documentation
    ("Perplexity of fixed-length models"), whose `max_length` is our block_size.

    lm-evaluation-harness uses windows that do not overlap, so that a token has between one and all tokens of its window
    before it, and moves the last window back until it is full. Its losses agree to about three digits with those for a
    stride of block_size - 1, except in the last window. Smaller strides give lower losses, because each token has more
    tokens before it.
    """

    def __init__(self, texts: Sequence[Tensor], block_size: int, stride: int) -> None:
        end = torch.tensor([END_OF_TEXT_ID], dtype=torch.uint16)
        self._streams = [torch.cat([end, text]) for text in texts]
        self._windows: list[_Window] = []
        self.units = 0
        for i, stream in enumerate(self._streams):
            start, scored = 0, 1
            while scored < len(stream):
                stop = min(start + block_size, len(stream))
                self._windows.append(_Window(text=i, start=start, stop=stop, scored=scored, unit=self.units))
                start, scored = start + stride, stop
            self.units += -(-(len(stream) - 1) // CHUNK)
        self.lengths = [window.stop - window.start for window in self._windows]

    def part(self, chosen: range) -> tuple[TokenDataset, list[Tensor]]:
        windows = [self._windows[i] for i in chosen]
        cut = [self._streams[w.text][w.start : w.stop] for w in windows]
        data = from_sequences(cut, [w.scored - w.start for w in windows])
        return data, [(torch.arange(w.scored, w.stop) - 1) // CHUNK + w.unit for w in windows]


Source = RecordSource | TextSource


class Sums(NamedTuple):
    """For each of some units: the summed loss in nats, the number of likeliest tokens, and of all tokens."""

    units: list[int]
    losses: list[float]
    right: list[int]
    tokens: list[int]

    @classmethod
    def restored(cls, finding: Any, source: Source, chosen: range) -> "Sums | None":
        """The sums that an interrupted run stored for these sequences; None for a value of another form."""
        if not isinstance(finding, list) or len(finding) != 4 or not all(isinstance(part, list) for part in finding):
            return None
        found = cls(*finding)
        ids, counts = torch.unique(torch.cat(source.part(chosen)[1]), return_counts=True)
        if found.units != ids.tolist() or found.tokens != counts.tolist():
            return None
        fits = len(found.units) == len(found.losses) == len(found.right) and all(
            type(loss) is float and isfinite(loss) and loss >= 0 and type(hits) is int and 0 <= hits <= n
            for loss, hits, n in zip(found.losses, found.right, found.tokens, strict=True)
        )
        return found if fits else None


def portions(lengths: Sequence[int], max_tokens: int) -> list[range]:
    """All sequences, divided into ranges of about PASSES * max_tokens tokens."""
    found, start, size = [], 0, 0
    for i, length in enumerate(lengths):
        size += length
        if size >= PASSES * max_tokens or i == len(lengths) - 1:
            found.append(range(start, i + 1))
            start, size = i + 1, 0
    return found


@torch.inference_mode()
def score(decoder: Decoder, source: Source, chosen: range, max_tokens: int) -> Sums:
    """Predict the targets of these sequences.

    Raises DivergedError if a loss is not finite, and CheckpointError for a token that the model does not know.
    """
    data, unit_of = source.part(chosen)
    check_token(int(data.tokens.to(torch.int32).max()), decoder.config.vocab_size)
    losses, right, units = [], [], []
    for row in make_rows(data, range(len(data)), max_tokens, torch.device(decoder.device)):
        hidden = decoder.hidden(row.idx.cpu().numpy(), row.sight)[0, row.places.tolist()]
        row_losses, row_right = token_losses(decoder, hidden, row.targets)
        losses.append(row_losses.cpu().double())
        right.append(row_right.cpu())
        units += [unit_of[i] for i in row.records]
    ids, index, counts = torch.unique(torch.cat(units), return_inverse=True, return_counts=True)
    total = torch.zeros(len(ids), dtype=torch.float64).index_add_(0, index, torch.cat(losses))
    if not total.isfinite().all():
        raise DivergedError("the model's losses are not finite: try --precision fp32, or another checkpoint")
    hits = torch.zeros(len(ids), dtype=torch.int64).index_add_(0, index, torch.cat(right).long())
    return Sums(ids.tolist(), total.tolist(), hits.tolist(), counts.tolist())


def token_losses(decoder: Decoder, hidden: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """-log p of each target (N,) in nats, and whether it has the largest logit, for final hidden states (N, C)."""
    losses, right = [], []
    for start in range(0, len(targets), LOGIT_ROWS[targets.device.type]):
        chosen = slice(start, start + LOGIT_ROWS[targets.device.type])
        logits = torch.as_tensor(decoder.head(hidden[chosen])).float()
        target = targets[chosen, None]
        losses.append((logits.logsumexp(dim=-1, keepdim=True) - logits.gather(1, target))[:, 0])
        right.append(logits.argmax(dim=-1) == target[:, 0])
    return torch.cat(losses), torch.cat(right)


def chunk_sizes(sizes: Sequence[Tensor]) -> Tensor:
    """(units, k) float64: the sums over the tokens of each unit of a `TextSource`.

    `sizes` are k numbers for each token, (T, k) for each text.
    """
    chunks = [of_text[start : start + CHUNK] for of_text in sizes for start in range(0, len(of_text), CHUNK)]
    return torch.stack([chunk.to(torch.float64).sum(dim=0) for chunk in chunks])


def collect(parts: Sequence[Sums], units: int) -> Tensor:
    """(units, 3) float64: each unit's summed loss, likeliest tokens, and tokens."""
    table = torch.zeros(units, 3, dtype=torch.float64)
    for part in parts:
        values = torch.tensor([part.losses, part.right, part.tokens], dtype=torch.float64).t()
        table.index_add_(0, torch.tensor(part.units, dtype=torch.int64), values)
    return table
