"""Token sequences end to end in one tensor, and which of their tokens are learned."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """n sequences of token ids. A model reads `ids[:-1]` of one, and predicts those of `ids[1:]` that are targets.

    So a sequence of T tokens takes T - 1 positions of the model's window. Each sequence has at least one target. Its
    first token is none, as no token precedes it.

    tokens     (N,) uint16, all sequences end to end; may be mapped from a file
    offsets    (n + 1,) int64, where each sequence starts, and N
    is_target  (N,) bool, which tokens are targets; may be mapped from a file
    """

    tokens: Tensor
    offsets: Tensor
    is_target: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Sequence i, (T,) int64, and which of its tokens are targets, (T,) bool.

        Raises IndexError outside of 0 to n - 1.
        """
        if not 0 <= i < len(self):
            raise IndexError(i)
        start, end = self.offsets[i : i + 2].tolist()
        return self.tokens[start:end].to(torch.int64), self.is_target[start:end]

    @property
    def lengths(self) -> Tensor:
        """(n,) int64, the number of tokens of each sequence."""
        return self.offsets.diff()

    @property
    def n_tokens(self) -> int:
        """The number of tokens of all sequences."""
        return len(self.tokens)

    @property
    def n_targets(self) -> int:
        """The number of tokens that are targets."""
        return int(self.target_counts.sum())

    @cached_property
    def first_targets(self) -> Tensor:
        """(n,) int64, the index of the first target of each sequence within it, at least 1."""
        starts, begins = self.offsets[:-1], self._runs[0]
        return begins[torch.searchsorted(begins, starts)] - starts

    @cached_property
    def target_counts(self) -> Tensor:
        """(n,) int64, the number of targets of each sequence."""
        begins, ends = self._runs
        return torch.zeros(len(self), dtype=torch.int64).index_add_(0, self._sequences_at(begins), ends - begins)

    @cached_property
    def _runs(self) -> Tensor:
        """(2, r) int64, where each of the r runs of targets begins, and where it ends.

        A run lies within one sequence, because no sequence begins with a target.
        """
        inner = torch.nonzero(self.is_target[1:] != self.is_target[:-1])[:, 0] + 1
        is_open = len(inner) % 2 == 1  # the last run, up to the end
        borders = torch.cat([inner, inner.new_tensor([self.n_tokens])]) if is_open else inner
        return borders.view(-1, 2).t().contiguous()

    def _sequences_at(self, places: Tensor) -> Tensor:
        """The sequences in which these places are."""
        return torch.searchsorted(self.offsets, places, right=True) - 1

    def select(self, indices: Sequence[int]) -> "TokenDataset":
        """A copy of these sequences, in this order."""
        bounds = self.offsets.tolist()
        chosen = [slice(bounds[i], bounds[i + 1]) for i in indices]
        return from_masked([self.tokens[part] for part in chosen], [self.is_target[part] for part in chosen])

    def fingerprint(self) -> str:
        """sha256 of the contents, in hex. It is the same on every machine.

        The targets are digested as the borders of their runs, without the ends of sequences: each border as its index
        within its sequence, int32, and negative unless it is the first of the sequence. So one run up to the end gives
        one number.
        """
        places = self._runs.t().flatten()
        places = places[~torch.isin(places, self.offsets)]
        sequences = self._sequences_at(places)
        borders = (places - self.offsets[sequences]).to(torch.int32)
        borders[1:][sequences[1:] == sequences[:-1]] *= -1
        digest = hashlib.sha256()
        for tensor in (self.offsets, borders, self.tokens):
            digest.update(len(tensor).to_bytes(8, "little"))
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def from_masked(sequences: Sequence[Tensor], masks: Sequence[Tensor]) -> TokenDataset:
    """A dataset of these sequences, each (T,) uint16, with a mask of its targets each, (T,) bool."""
    offsets = torch.zeros(len(sequences) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64).cumsum(0)
    tokens = torch.cat(list(sequences)) if sequences else torch.empty(0, dtype=torch.uint16)
    return TokenDataset(tokens, offsets, torch.cat(list(masks)) if masks else torch.empty(0, dtype=torch.bool))


def from_sequences(sequences: Sequence[Tensor], first_targets: Iterable[int]) -> TokenDataset:
    """A dataset of these sequences, each (T,) uint16. The targets of each begin at this index, and go to its end."""
    pairs = zip(sequences, first_targets, strict=True)
    return from_masked(sequences, [torch.arange(len(sequence)) >= first for sequence, first in pairs])


def mask_from(offsets: Tensor, first_targets: Tensor) -> Tensor:
    """(N,) bool: the targets of sequences with these `offsets`, (n + 1,), from an index in each, (n,), to its end.

    Each index is at least 1, and less than the length of its sequence.
    """
    steps = torch.zeros(int(offsets[-1]) + 1, dtype=torch.int8)
    steps[offsets[1:]] = -1
    steps[offsets[:-1] + first_targets] = 1
    return steps[:-1].cumsum(0, dtype=torch.int8).to(torch.bool)


def empty() -> TokenDataset:
    """A dataset of no sequences."""
    return from_sequences([], [])
