"""The one clock: what a history says of the time left."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sweep.core.forecast import Forecast, Took, forecast, rests_s


def cells_that_took(seconds: list[float]) -> list[Took]:
    return [Took(cell, one) for cell, one in enumerate(seconds)]


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 1e4), max_size=60), st.integers(0, 1_000_000), st.floats(0, 1e5))
def test_the_time_left_lies_within_its_bounds(durations: list[float], cells: int, begun_s: float) -> None:
    found = forecast(cells_that_took(durations), cells, begun_s)
    low, left, high = found.seconds_left_low, found.seconds_left, found.seconds_left_high
    assert (left is None) == (not durations)
    if high is not None:
        assert left is not None
        assert low is not None
        assert 0 <= low <= left <= high


def test_even_durations_leave_no_doubt_and_uneven_ones_more_of_it() -> None:
    even, uneven = forecast(cells_that_took([10.0] * 20), 100), forecast(cells_that_took([5.0, 15.0] * 10), 100)
    assert even == Forecast(10.0, 1000.0, 1000.0, 1000.0)
    assert uneven.seconds_left == 1000.0
    assert uneven.seconds_left_low is not None
    assert 600 < uneven.seconds_left_low < 900


def test_a_cell_takes_all_of_its_attempts() -> None:
    """Each cell fails for 30 s and then takes 10 s: 40 s a cell, neither 10 s nor 20 s."""
    history = [Took(cell, seconds) for cell in range(5) for seconds in (10.0, 30.0)]
    assert forecast(history, 100) == Forecast(40.0, 4000.0, 4000.0, 4000.0)


def test_what_the_cell_at_hand_has_taken_is_over_but_never_more_than_one_cell() -> None:
    history = cells_that_took([10.0])
    assert forecast(history, 3, 4.0).seconds_left == 26.0
    assert forecast(history, 3, 400.0).seconds_left == 20.0
    assert forecast(history, 0).seconds_left == 0.0


def test_without_a_history_nothing_is_known() -> None:
    assert forecast([], 10) == Forecast()


def test_rests_are_added_as_they_are_asked_for_or_as_they_were() -> None:
    history = cells_that_took([10.0, 10.0])
    assert rests_s(30.0, [999.0], 4) == rests_s(None, [5.0, 30.0, 600.0], 4) == 120.0
    assert (rests_s(None, [], 4), rests_s(30.0, [], -1)) == (0.0, 0.0)
    assert forecast(history, 5, 0.0, 120.0) == Forecast(10.0, 170.0, 170.0, 170.0)
    assert forecast([], 5, 0.0, 120.0) == Forecast(), "of cells that nobody has measured nothing is known"
