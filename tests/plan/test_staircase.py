"""The frontier of a staircase, found by few questions."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.plan.memory.staircase import Place, Staircase

sizes = st.integers(1, 9)


@st.composite
def stairs(draw: st.DrawFn) -> tuple[int, list[int]]:
    """How many rows there are, and in how many of them it holds, for each column."""
    rows = draw(sizes)
    return rows, sorted(draw(st.lists(st.integers(0, rows), min_size=1, max_size=12)), reverse=True)


def ask(found: Staircase, truth: list[int], left: int, may_ask: Callable[[Place], bool] = lambda place: True) -> int:
    """Ask until nothing is open that may be asked; how many questions that were."""
    asked: list[Place] = []
    while (place := found.next_place(left - len(asked), may_ask)) is not None:
        assert place not in asked
        assert may_ask(place)
        asked.append(place)
        found.learn(place, holds=place[1] < truth[place[0]])
    return len(asked)


@given(stairs())
def test_the_right_frontier_by_no_more_questions_than_columns_and_rows(given: tuple[int, list[int]]) -> None:
    rows, truth = given
    found = Staircase(len(truth), rows)
    assert ask(found, truth, len(truth) + rows) <= len(truth) + rows
    assert (found.holds, found.fails, found.is_contradicted) == (truth, truth, False)


@given(stairs(), st.data())
def test_a_search_that_was_cut_goes_on_within_the_same_limit(given: tuple[int, list[int]], data: st.DataObject) -> None:
    rows, truth = given
    before, limit = Staircase(len(truth), rows), len(truth) + rows
    answers: list[Place] = []
    for _ in range(data.draw(st.integers(0, limit))):
        if (place := before.next_place(limit - len(answers))) is None:
            break
        answers.append(place)
        before.learn(place, holds=place[1] < truth[place[0]])
    again = Staircase(len(truth), rows)
    for place in data.draw(st.permutations(answers)):
        again.learn(place, holds=place[1] < truth[place[0]])
    assert len(answers) + ask(again, truth, limit - len(answers)) <= limit
    assert again.holds == truth


@given(stairs(), st.data())
def test_places_that_may_not_be_asked_stay_open_where_nothing_else_decides_them(
    given: tuple[int, list[int]], data: st.DataObject
) -> None:
    rows, truth = given
    places = [(column, row) for column in range(len(truth)) for row in range(rows)]
    barred = data.draw(st.sets(st.sampled_from(places)))
    found = Staircase(len(truth), rows)
    ask(found, truth, len(truth) + rows, lambda place: place not in barred)
    for column, held in enumerate(truth):
        assert found.holds[column] <= held <= found.fails[column]
        assert all((column, row) in barred for row in range(found.holds[column], found.fails[column]))


def test_where_all_of_it_holds_one_question_is_enough_and_a_long_grid_is_halved() -> None:
    assert ask(Staircase(40, 30), [30] * 40, 70) == 1
    assert ask(Staircase(1, 60), [17], 61) <= 7
    assert ask(Staircase(60, 2), [2] * 20 + [0] * 40, 62) <= 16


def test_answers_that_contradict_each_other_are_noticed() -> None:
    found = Staircase(3, 3)
    found.learn((1, 1), holds=False)
    found.learn((2, 2), holds=True)
    assert found.is_contradicted
    assert all(held <= failed for held, failed in zip(found.holds, found.fails, strict=True))
