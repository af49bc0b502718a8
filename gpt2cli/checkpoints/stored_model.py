"""A model as a checkpoint stores it, opened without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gpt2cli.checkpoints.lazy_arrays import LazyArray
from gpt2cli.checkpoints.mapped_files import Array, release
from gpt2cli.checkpoints.tensor_checks import is_finite
from gpt2cli.config import GPTConfig
from gpt2cli.errors import CheckpointError
from gpt2cli.model.origin import Origin


class Weights(Mapping[str, Array]):
    """The weights by their names in GPT's state dict, read when they are used.

    A matrix is (out, in), perhaps not contiguous. It is a view of the mapped file in the type that is stored, or fp32
    where a file is quantized or an adapter is merged: then it is computed at each access, and not kept.
    `lm_head.weight` is there only if the head is not the embedding.

    arrays  the tensors that the weights are read from
    where   the file or directory, for error messages
    """

    def __init__(self, arrays: Mapping[str, LazyArray], where: object) -> None:
        self.arrays, self.where = arrays, where

    def __getitem__(self, name: str) -> Array:
        """A weight. Raises CheckpointError if a value of it is not finite."""
        array = self.arrays[name].read()
        if not is_finite(array):
            raise CheckpointError(
                f"{self.where} is damaged: {name} has values that are not finite: fetch or save it again"
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def release(self, name: str) -> None:
        """Remove what a weight was read from from memory, if that is mapped. It is read again when it is used.

        Arrays that were read before must not have been changed: their changes would be lost.
        """
        for source in self.arrays[name].sources:
            release(source)


@dataclass(frozen=True)
class StoredModel:
    """A model whose names and shapes have been checked. Its weights are not read yet."""

    config: GPTConfig
    weights: Weights
    origin: Origin
