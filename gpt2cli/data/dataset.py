"""Token sequences end to end in one tensor, and where the learned part of each begins."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """n sequences of token ids. A model reads `ids[:-1]` of one and predicts `ids[loss_from:]`.

    So a sequence of T tokens takes T - 1 positions of the model's window.

    tokens     (N,) uint16, all sequences end to end; may be mapped from a file
    offsets    (n + 1,) int64, where each sequence starts, and N
    loss_from  (n,) int32, index within its sequence of the first token that is a target, at least 1
    """

    tokens: Tensor
    offsets: Tensor
    loss_from: Tensor

    def __len__(self) -> int:
        return len(self.loss_from)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Sequence i, (T,) int64, and the index of its first target. Raises IndexError outside of 0 to n - 1."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        start, end = self.offsets[i : i + 2].tolist()
        return self.tokens[start:end].to(torch.int64), int(self.loss_from[i])

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
        return self.n_tokens - int(self.loss_from.sum())

    def select(self, indices: Sequence[int]) -> "TokenDataset":
        """A copy of these sequences, in this order."""
        bounds = self.offsets.tolist()
        chosen = [self.tokens[bounds[i] : bounds[i + 1]] for i in indices]
        return from_sequences(chosen, self.loss_from[list(indices)].tolist())

    def fingerprint(self) -> str:
        """sha256 of the contents, in hex. It is the same on every machine."""
        digest = hashlib.sha256()
        for tensor in (self.offsets, self.loss_from, self.tokens):
            digest.update(len(tensor).to_bytes(8, "little"))
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def from_sequences(sequences: Sequence[Tensor], loss_from: Iterable[int]) -> TokenDataset:
    """A dataset of these sequences, each (T,) uint16, with the index of each one's first target."""
    lengths = [len(sequence) for sequence in sequences]
    tokens = torch.cat(list(sequences)) if sequences else torch.empty(0, dtype=torch.uint16)
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor(lengths, dtype=torch.int64).cumsum(0)
    return TokenDataset(tokens, offsets, torch.tensor(list(loss_from), dtype=torch.int32))


def empty() -> TokenDataset:
    """A dataset of no sequences."""
    return from_sequences([], [])
