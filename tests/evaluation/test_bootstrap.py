"""Laws of the intervals."""

import torch

from gpt2cli.evaluation.bootstrap import Estimate, estimates, resampled_sums


def mean(sums: list[float]) -> float:
    return sums[0] / sums[1]


def table(values: torch.Tensor) -> torch.Tensor:
    return torch.stack([values.double(), torch.ones(len(values), dtype=torch.float64)], dim=1)


def test_the_same_seed_draws_the_same_for_every_model():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    one = estimates([table(values), table(values + 2)], mean, 200, 3)
    assert one == estimates([table(values), table(values + 2)], mean, 200, 3)
    assert one != estimates([table(values), table(values + 2)], mean, 200, 4)
    _, [change] = one  # what varies is common to both, so that the difference does not
    assert all(abs(number - 2) < 1e-6 for number in (change.value, change.low, change.high))


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    stream = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        [found], _ = estimates([table(torch.randn(40, generator=stream))], mean, 200, 0)
        covered += found.low <= 0 <= found.high
    assert 176 <= covered <= 198  # of 200, where 190 are promised, and percentiles promise a little too much


def test_drawing_in_portions_changes_nothing(monkeypatch):
    values = table(torch.arange(30.0))
    whole = resampled_sums(values, 100, 0)
    assert whole.shape == (100, 2) and (whole[:, 1] == 30).all()
    monkeypatch.setattr("gpt2cli.evaluation.bootstrap._MAX_VALUES", 30 * 2 * 7)
    assert torch.equal(resampled_sums(values, 100, 0), whole)


def test_a_single_record_has_no_interval():
    assert estimates([table(torch.ones(1)), table(torch.zeros(1))], mean, 10, 0) == (
        [Estimate(1.0), Estimate(0.0)],
        [Estimate(-1.0)],
    )
