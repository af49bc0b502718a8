"""Token sequences end to end: what goes in comes out, and the fingerprint tells two apart."""

import pytest
import torch

from gpt2cli.data.dataset import TokenDataset, empty, from_sequences


def made(*sequences: list[int], loss_from: int = 1) -> TokenDataset:
    return from_sequences([torch.tensor(ids, dtype=torch.uint16) for ids in sequences], [loss_from] * len(sequences))


def test_sequences_come_out_as_they_went_in() -> None:
    data = made([1, 50256, 3], [4, 5])
    assert len(data) == 2
    ids, loss_from = data[0]
    assert (ids.tolist(), ids.dtype, loss_from) == ([1, 50256, 3], torch.int64, 1)
    assert data.lengths.tolist() == [3, 2]
    assert (data.n_tokens, data.n_targets) == (5, 3)
    assert [ids.tolist() for ids, _ in data] == [[1, 50256, 3], [4, 5]]
    for i in (-1, 2):
        with pytest.raises(IndexError):
            data[i]


def test_select() -> None:
    data = made([1, 2, 3], [4, 5], [6, 7])
    assert [ids.tolist() for ids, _ in data.select([2, 0])] == [[6, 7], [1, 2, 3]]
    assert data.select([0, 1, 2]).fingerprint() == data.fingerprint()
    assert data.select([]).fingerprint() == empty().fingerprint()
    assert (len(empty()), empty().n_tokens, empty().n_targets, len(empty().lengths)) == (0, 0, 0, 0)


def test_the_fingerprint_is_of_everything() -> None:
    variants = [
        *(made([1, 2, 3], [4, 5]), made([1, 2], [3, 4, 5]), made([1, 2, 3], [4, 6]), made([4, 5], [1, 2, 3])),
        *(made([1, 2, 3, 4, 5]), made([1, 2, 3], [4, 5, 6], loss_from=2), made([1, 2, 3], [4, 5, 6]), empty()),
    ]
    assert len({data.fingerprint() for data in variants}) == len(variants)
    # the same on every machine
    assert made([1, 2, 3], [4, 5]).fingerprint().startswith("6a0178f91143d547")
