"""Medians, intervals and the set of best cells."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_maker import ranged, result

from ollama_sweep.core import stats
from ollama_sweep.core.outcome import CellResult, Flag, Status

POSITIVE = st.lists(st.floats(min_value=0.001, max_value=1e9), min_size=1, max_size=40)


def test_median_is_the_middle_or_the_mean_of_the_two_middle_ones() -> None:
    assert stats.median([30, 10, 20]) == 20
    assert stats.median([40, 10, 30, 20]) == 25


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError):
        stats.median(values)
    with pytest.raises(ValueError):
        stats.interval(values)


def test_below_six_runs_the_interval_is_smallest_and_largest_without_a_claim() -> None:
    assert stats.median_interval([322, 335, 331]) == stats.Interval(322, 335, None)


@pytest.mark.parametrize(
    ("runs", "rank", "coverage"), [(6, 1, 0.96875), (8, 1, 0.9921875), (9, 2, 0.9609375), (12, 3, 0.96142578125)]
)
def test_from_six_runs_on_order_statistics_with_their_true_coverage(runs: int, rank: int, coverage: float) -> None:
    found = stats.median_interval(list(range(1, runs + 1)))
    assert (found.low, found.high) == (rank, runs + 1 - rank)
    assert found.coverage == pytest.approx(coverage)


def test_the_coverage_is_what_drawing_at_random_shows() -> None:
    chance = random.Random(7)
    claimed = stats.median_interval(range(9)).coverage
    hits = 0
    for _ in range(4000):
        low, high = stats.interval([chance.gauss(0, 1) for _ in range(9)])
        hits += low <= 0 <= high
    assert hits / 4000 == pytest.approx(claimed, abs=0.012)


@given(POSITIVE)
def test_the_interval_encloses_the_median(values: list[float]) -> None:
    low, high = stats.interval(values)
    assert min(values) <= low <= stats.median(values) <= high <= max(values)


def test_described_in_words() -> None:
    assert stats.describe([331, 322, 335]) == "331 (322–335, n = 3)"
    assert stats.describe(range(101, 110)) == "105 (102–108 at 96.1 %, n = 9)"


def test_noise_and_width_are_relative_to_the_median() -> None:
    assert stats.noise([95, 100, 105]) == pytest.approx(0.05)
    assert stats.relative_width([99, 100, 101]) == pytest.approx(0.02)
    assert stats.relative_width([100]) == math.inf
    with pytest.raises(ValueError, match="above zero"):
        stats.noise([0.0, 0.0])


def test_an_outlier_is_told_by_the_scale_of_all_cells() -> None:
    chance = random.Random(3)
    cells = {n: [1000 / n * (1 + chance.gauss(0, 0.01)) for _ in range(3)] for n in range(1, 30)}
    cells[30] = [100.0, 101.0, 160.0]
    found = stats.outliers(cells)
    assert found[30] == [False, False, True]
    assert sum(itertools.chain.from_iterable(found.values())) <= 3


def test_without_several_runs_nothing_is_an_outlier() -> None:
    assert stats.outliers({"a": [5.0], "b": [900.0], "c": []}) == {"a": [False], "b": [False], "c": []}


def test_equal_runs_are_no_scale_to_condemn_a_hair() -> None:
    assert stats.outliers({"a": [100.0, 100.0, 100.01], "b": [50.0, 50.0, 50.0]})["a"] == [False, False, False]


def test_the_best_is_a_set_of_overlapping_ranges() -> None:
    best = ranged(4096, 256, 331, 322, 335)
    tied = ranged(2048, 256, 325, 318, 322)
    apart = ranged(1024, 256, 330, 300, 321.9)
    assert stats.best_set([apart, tied, best], "prompt_eval_rate") == (best, (tied,))


def test_tied_cells_come_best_first_and_a_lower_median_may_reach_higher() -> None:
    best, second, third = ranged(1, 1, 100, 90, 105), ranged(1, 2, 99, 91, 120), ranged(1, 3, 92, 80, 95)
    assert stats.best_set([third, second, best], "prompt_eval_rate") == (best, (second, third))


def test_lower_is_better_where_told() -> None:
    slow = result(1, 1, metrics={"load_duration_s": 9.0})
    quick = result(1, 2, metrics={"load_duration_s": 3.0})
    same = result(1, 3, metrics={"load_duration_s": 3.0})
    assert stats.best_set([slow, quick, same], "load_duration_s", higher_is_better=False) == (quick, (same,))


def test_only_measured_numbers_count_whatever_their_flags() -> None:
    failed = result(1, 1, 999.0, status=Status.OOM)
    cached = result(1, 2, status=Status.OK, metrics={}, flags=frozenset({Flag.CACHED}))
    broken = result(1, 3, math.nan)
    spilled = result(1, 4, 50.0, flags=frozenset({Flag.SPILLED, Flag.CLAMPED, Flag.IMPORTED}))
    assert stats.best_set([failed, cached, broken, spilled], "prompt_eval_rate") == (spilled, ())
    assert stats.best_set([failed, cached, broken], "prompt_eval_rate") == (None, ())
    assert stats.best_set([], "prompt_eval_rate") == (None, ())


def test_from_six_runs_on_the_interval_ties_and_not_the_range() -> None:
    def cell(num_ctx: int, low: float, middle: float, high: float) -> CellResult:
        metrics = {"runs": 9.0, "prompt_eval_rate": middle, "prompt_eval_rate_min": middle - 50,
                   "prompt_eval_rate_max": middle + 50, "prompt_eval_rate_low": low,
                   "prompt_eval_rate_high": high}  # fmt: skip
        return result(num_ctx, 1, metrics=metrics, status=Status.OK)

    best, tied, apart = cell(1, 328, 331, 334), cell(2, 325, 327, 329), cell(3, 318, 321, 327.9)
    assert stats.extent(best, "prompt_eval_rate") == (328, 334)
    assert stats.best_set([apart, tied, best], "prompt_eval_rate") == (best, (tied,))


def test_the_interval_of_right_and_wrong_answers_is_wilsons() -> None:
    assert stats.mean_interval([[1.0], [1.0], [0.0]]) == stats.wilson(2 / 3, 3)
    assert stats.mean_interval([[1.0]]) == stats.wilson(1, 1)


def test_asking_the_same_questions_again_makes_their_interval_no_narrower() -> None:
    assert stats.mean_interval([[1.0, 1.0], [0.0, 1.0]]) == stats.wilson(0.75, 2)
    once, again = (stats.mean_interval(scores) for scores in ([[0.3], [0.9]], [[0.2, 0.4], [0.9, 0.9]]))
    assert again == pytest.approx(once)


def test_the_interval_of_scores_is_two_standard_errors_wide_and_stays_a_score() -> None:
    low, high = stats.mean_interval([[0.4], [0.5], [0.6], [0.5]]) or (0, 0)
    half = 1.959964 * math.sqrt(0.02 / 3 / 4)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))
    assert stats.mean_interval([[0.2], [1.0], [0.9]]) == pytest.approx((0.2068, 1.0), abs=0.001)
    low, high = stats.mean_interval([[10.0], [40.0]]) or (0, 0)
    assert low < 0 < 40 < high, "what is no share is not cut off"


def test_one_score_says_nothing_of_the_others() -> None:
    assert stats.mean_interval([[0.4]]) is None
    assert stats.mean_interval([]) is None
