"""Token sequences end to end: what goes in comes out, and the fingerprint tells two apart."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2cli.data.dataset import TokenDataset, empty, from_masked, from_sequences, mask_from
from tests.training.records import alike, dataset


def made(*sequences: list[int], first: int = 1) -> TokenDataset:
    return from_sequences([torch.tensor(ids, dtype=torch.uint16) for ids in sequences], [first] * len(sequences))


def test_sequences_come_out_as_they_went_in() -> None:
    data = made([1, 50256, 3], [4, 5])
    assert len(data) == 2
    ids, is_target = data[0]
    assert (ids.tolist(), ids.dtype, is_target.tolist()) == ([1, 50256, 3], torch.int64, [False, True, True])
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
        *(made([1, 2, 3, 4, 5]), made([1, 2, 3], [4, 5, 6], first=2), made([1, 2, 3], [4, 5, 6]), empty()),
    ]
    assert len({data.fingerprint() for data in variants}) == len(variants)
    # the same on every machine
    assert made([1, 2, 3], [4, 5]).fingerprint().startswith("6a0178f91143d547")


MASKS = st.lists(
    st.lists(st.booleans(), min_size=1, max_size=9).filter(any).map(lambda rest: [False, *rest]), max_size=6
)
"""Masks of sequences: the first token is no target, and at least one other is."""


def masked(masks: list[list[bool]]) -> TokenDataset:
    tensors = [torch.tensor(mask) for mask in masks]
    return from_masked([torch.arange(len(mask)).to(torch.uint16) for mask in masks], tensors)


@settings(deadline=None)
@given(MASKS)
def test_facts_about_masks(masks: list[list[bool]]) -> None:
    data = masked(masks)
    assert [is_target.tolist() for _, is_target in data] == masks
    assert data.first_targets.tolist() == [mask.index(True) for mask in masks]
    assert data.target_counts.tolist() == [sum(mask) for mask in masks]
    assert data.n_targets == sum(map(sum, masks))
    backwards = range(len(masks) - 1, -1, -1)
    assert data.select(backwards).fingerprint() == masked(masks[::-1]).fingerprint()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=6))
def test_targets_up_to_the_end_are_known_by_their_first(pairs: list[tuple[int, int]]) -> None:
    sequences = [torch.arange(first + more).to(torch.uint16) for first, more in pairs]
    data = from_sequences(sequences, [first for first, _ in pairs])
    assert data.first_targets.tolist() == [first for first, _ in pairs]
    assert data.target_counts.tolist() == [more for _, more in pairs]
    assert torch.equal(mask_from(data.offsets, data.first_targets), data.is_target)


@settings(deadline=None)
@given(MASKS, MASKS)
def test_other_masks_have_another_fingerprint(first: list[list[bool]], second: list[list[bool]]) -> None:
    assert (masked(first).fingerprint() == masked(second).fingerprint()) == (first == second)


def test_masks_of_the_same_borders_in_other_sequences_have_another_fingerprint() -> None:
    lengths = (6, 6, 6)
    runs = [[range(1, 2), range(3, 4)], [range(1, 2)], [range(3, 4)]]
    found = set()
    for chosen in ([0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 0, 1]):
        masks = [[any(i in run for run in runs[c]) for i in range(n)] for c, n in zip(chosen, lengths, strict=True)]
        found.add(masked(masks).fingerprint())
    assert len(found) == 4


def test_fingerprints_of_earlier_versions_are_still_valid() -> None:
    assert dataset().fingerprint() == "72d861c985db81055783dcb935ff35e2e75021c70aff3c67a4d1ba984ee12822"
    assert alike().fingerprint() == "ebe43a74111fbbbda094238dfd2863ec307f1f83b227e9db0f830be504d1b485"
