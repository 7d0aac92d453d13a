"""The one clock: what a history says of the time left."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sweep.core.forecast import (
    Controls,
    ControlsSeen,
    Forecast,
    Took,
    Work,
    WorkLeft,
    controls_to_come,
    forecast,
    rests_s,
)
from ollama_sweep.core.loading.change import Change
from ollama_sweep.core.loading.controls import Rule


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


# -- cells that ask more, or less --------------------------------------------------------------------------------------


def test_controls_are_added_with_the_load_that_the_cell_behind_one_needs() -> None:
    history = cells_that_took([10.0, 10.0])
    controls = [Took(-number, 30.0) for number in range(1, 4)]
    assert forecast(history, 100, controls=Controls(4, took=controls)).seconds_left == 1120.0
    assert forecast(history, 100, controls=Controls(4, took=controls, rest_s=5.0)).seconds_left == 1140.0
    assert forecast(history, 100, controls=Controls(4)).seconds_left == 1040.0, "as long as there was none: as a cell"
    assert forecast(history, 100, controls=Controls(0, 500.0, controls)).seconds_left == 1060.0, "one in 500 s"
    seen = ControlsSeen(0, controls)
    assert controls_to_come(Rule(cells=25), seen, 100, 200).count == 4
    assert controls_to_come(Rule(cells=25), seen, 0, 200) == Controls()
    assert (
        forecast(history, 100, controls=controls_to_come(Rule(cells=25), ControlsSeen(), 100, 200)).seconds_left == 1000
    )
    kept, changed = (Work("prompt_eval", None, 1, "b", needs) for needs in (Change.KEPT, Change.MODEL))
    control = Work("prompt_eval", None, 1, "a", Change.MODEL)
    history = [Took(1, 10.0, kept, 10.0), Took(2, 100.0, changed, 10.0), Took(3, 60.0, control, 10.0)]
    work = WorkLeft({kept: 1.0}, {changed: 1.0}, {control: 1.0})
    found = forecast(history, 20, work=work, controls=Controls(2, took=[Took(-1, 60.0, control, 10.0)]))
    assert found.seconds_left == pytest.approx(18 * 10.0 + 2 * 100.0 + 2 * 60.0)
    assert forecast(history, 0, work=work).seconds_left == 0.0


def lengths(seconds_by_tokens: dict[int, float], *, load_s: float = 0.0, cells: int = 4) -> list[Took]:
    """Cells with a prompt of these lengths; the engine counts a token or two more or less."""
    return [
        Took(100 * tokens + cell, load_s + asking_s, Work("prompt_eval", tokens + cell % 3), asking_s)
        for tokens, asking_s in seconds_by_tokens.items()
        for cell in range(cells)
    ]


def left_s(history: list[Took], *works: Work) -> float:
    found = forecast(history, len(works), work=WorkLeft(dict.fromkeys(works, 1.0))).seconds_left
    assert found is not None
    return found


def test_a_longer_prompt_takes_as_much_longer_to_read_as_it_is_longer_and_is_loaded_no_longer() -> None:
    short = lengths({1024: 2.0}, load_s=3.0)
    assert left_s(short, Work("prompt_eval", 1024)) == pytest.approx(5.0)
    assert left_s(short, Work("prompt_eval", 8192)) == pytest.approx(3.0 + 16.0, rel=0.01)
    assert left_s(short, *[Work("prompt_eval", tokens) for tokens in (1024, 8192)]) == pytest.approx(24.0, rel=0.01)
    assert left_s(short, Work("prompt_eval", 128)) == pytest.approx(3.25, rel=0.01)
    assert left_s(short, Work("prompt_eval", 0)) == left_s(short, Work("prompt_eval")) == pytest.approx(5.0)


def test_two_lengths_say_how_steeply_it_goes_on() -> None:
    for seconds, wanted in (
        ({1024: 1.0, 2048: 2.0}, 8.0),
        ({1024: 1.0, 2048: 3.0}, 27.0),
        ({1024: 1.0, 2048: 1.0}, 1.0),
    ):
        assert left_s(lengths(seconds), Work("prompt_eval", 8192)) == pytest.approx(wanted, rel=0.02)
    assert left_s(lengths({1024: 1.0, 2048: 100.0}), Work("prompt_eval", 4096)) == pytest.approx(400, rel=0.02)


def test_what_asks_the_same_speaks_for_a_cell_and_what_asks_otherwise_only_where_nothing_else_does() -> None:
    history = [
        *(Took(n, seconds, Work("chat", None, at_once), seconds) for n, (seconds, at_once) in
          enumerate([(40.0, 1), (44.0, 1), (12.0, 4), (10.0, 4)])),
        *lengths({1024: 2.0}),
    ]  # fmt: skip
    assert left_s(history, Work("chat", None, 1)) == 42.0
    assert left_s(history, Work("chat", None, 4), Work("prompt_eval", 1024)) == 13.0
    assert left_s(history, Work("chat", None, 16)) == 11.0, "more at once may be no quicker"
    every = sum(took.seconds for took in history) / len(history)
    assert left_s(history, Work("mmlu")) == pytest.approx(every)


def test_other_work_is_in_greater_doubt_and_equal_work_in_none() -> None:
    even = lengths({1024: 2.0, 8192: 20.0})
    found = forecast(even, 100, work=WorkLeft({Work("prompt_eval", 8192): 1.0}))
    assert (found.seconds_left_low, found.seconds_left, found.seconds_left_high) == (2000.0, 2000.0, 2000.0)
    other = forecast(even, 100, work=WorkLeft({Work("prompt_eval", 32768): 1.0}))
    assert other.seconds_left_low is not None
    assert other.seconds_left is not None
    assert other.seconds_left_low < 0.7 * other.seconds_left
