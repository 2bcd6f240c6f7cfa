"""Means with their uncertainty: intervals are those of the textbook and of scipy, and bad input is refused."""

import math

import pytest
from scipy.stats import ttest_rel

from course_lib.evaluation import mean_and_spread, paired_interval


def test_an_interval_by_hand():
    # differences 1, 2, 3: mean 2, spread 1; t for two degrees of freedom has a closed form, q sqrt(2 / (1 - q^2))
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    assert paired_interval([2, 4, 6], [1, 2, 3]) == pytest.approx((2, 2 - t / math.sqrt(3), 2 + t / math.sqrt(3)))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 1 - 0.05 / 6])
def test_an_interval_is_that_of_the_paired_t_test(confidence):
    first, second = [0.31, 0.52, 0.44, 0.47, 0.9], [0.22, 0.58, 0.41, 0.2, 0.1]
    theirs = ttest_rel(first, second).confidence_interval(confidence)
    assert paired_interval(first, second, confidence=confidence)[1:] == pytest.approx((theirs.low, theirs.high))


def test_an_interval_of_equal_differences_is_a_point():
    assert paired_interval([2, 3], [1, 2]) == (1, 1, 1)


def test_more_confidence_makes_a_wider_interval():
    lows = [paired_interval([1, 2, 4], [0, 0, 1], confidence=c)[1] for c in (0.8, 0.95, 0.99)]
    assert lows == sorted(lows, reverse=True)


@pytest.mark.parametrize(
    ("first", "second", "confidence", "message"),
    [
        ([1, 2, 3], [1, 2], 0.95, "got 3 and 2 values"),
        ([1], [2], 0.95, "at least two values"),
        ([], [], 0.95, "at least two values"),
        ([1, math.nan], [1, 2], 0.95, "pair 1 is nan and 2"),
        ([1, 2], [math.inf, 2], 0.95, "pair 0 is 1 and inf"),
        ([1, 2], [1, 3], 95, "between 0 and 1; got 95"),
        ([1, 2], [1, 3], math.nan, "between 0 and 1; got nan"),
    ],
)
def test_what_has_no_interval_is_refused(first, second, confidence, message):
    with pytest.raises(ValueError, match=message):
        paired_interval(first, second, confidence=confidence)


def test_mean_and_spread_by_hand():
    assert mean_and_spread([1, 2, 3]) == (2, 1)
    assert mean_and_spread([0.4]) == (0.4, 0)
