"""Statistics against figures worked out by hand or printed in tables."""

import pytest

from plq.compare.statistics import PruneReport, first_reaching, median_time, paired, removal_cost, summary


def test_mean_and_standard_deviation():
    """2, 4, 4, 4, 5, 5, 7, 9: squares of the deviations sum to 32; n - 1 = 7."""
    found = summary([2, 4, 4, 4, 5, 5, 7, 9])
    assert (found.n, found.mean, found.sd) == (8, 5.0, pytest.approx((32 / 7) ** 0.5))
    assert summary([3.5]).sd is None


def test_paired_difference_and_its_interval():
    """Differences 1, 2, 3: mean 2, sd 1; t for 2 degrees of freedom is 4.303 in every table."""
    found = paired([10, 20, 30], [11, 22, 33])
    assert found.differences == (1, 2, 3) and (found.mean, found.sd, found.n) == (2, 1, 3)
    half = 4.303 / 3**0.5
    assert (found.low, found.high) == (pytest.approx(2 - half, abs=1e-3), pytest.approx(2 + half, abs=1e-3))


def test_paired_over_five_seeds_uses_t_of_four_degrees():
    """0, 0, 0, 0, 5: mean 1, sd sqrt(20 / 4); t is 2.776."""
    found = paired([0] * 5, [0, 0, 0, 0, 5])
    assert found.high - found.mean == pytest.approx(2.776 * 5**0.5 / 5**0.5, abs=1e-3)
    assert found.low < 0 < found.mean


def test_the_order_of_the_pair_matters_and_lengths_must_agree():
    assert paired([50.0], [55.0]).mean == 5 and paired([55.0], [50.0]).mean == -5
    assert paired([1.0], [2.0]).low is None and paired([1.0], [2.0]).sd is None
    with pytest.raises(ValueError, match="argument 2 is"):
        paired([1.0, 2.0], [1.0])


def test_the_first_time_counts_not_the_best():
    assert first_reaching([1, 2, 3, 4], [0.1, 0.5, 0.4, 0.6], 0.5) == 2
    assert first_reaching([1, 2, 3], [0.1, 0.5, 0.4], 0.51) is None


def test_never_is_later_than_every_time():
    assert median_time([3, None, 5]) == 5
    assert median_time([None, None, 5]) is None
    assert median_time([3, None]) is None and median_time([3, 5, 4, None]) == 5


def test_what_removal_costs():
    """f is 0 from 1.5 on: 0.8 before it, down to 0.3, back at epoch 5."""
    times, accuracies, factors = [1, 2, 3, 4, 5, 6], [0.8, 0.5, 0.3, 0.7, 0.85, 0.1], [0.4, 0, 0, 0, 0, 0]
    assert removal_cost(times, accuracies, factors, zero=1.5) == PruneReport(0.8, 0.3, 3.5)
    assert removal_cost(times[:4], accuracies[:4], factors[:4], zero=1.5) == PruneReport(0.8, 0.3, None)
    assert removal_cost(times, accuracies, [0.0] * 6, zero=0) is None
    assert removal_cost([1], [0.9], [0.5], zero=2) is None
