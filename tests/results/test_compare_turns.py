"""What the turns of a pair say: which loads belong together, how far their differences scatter, what rests on them."""

from __future__ import annotations

import math
import random

from ollama_sweep.core.noise.spread import load_of
from ollama_sweep.results.compare import rule
from ollama_sweep.results.compare.turns import Timed, Turns, in_turns, turns_of

MINUTE = 60.0


def timed(at: float, rate: float, *, choice: int = 0, is_value: bool = True) -> Timed:
    return Timed(at * MINUTE, load_of([rate, rate * 1.001, rate * 0.999]), choice, is_value)


def arms(change: float, *, controls: int = 6, cells: int = 12) -> Turns:
    """Weather of 30 % from minute to minute meets both loads of a turn; each load has 0.5 % of its own."""
    chance = random.Random(1)
    sides: tuple[dict[tuple[str, str], list[Timed]], ...] = ({}, {})
    for turn in range(cells + controls):
        is_value = turn < cells
        cell, weather = (str(turn) if is_value else "0", ""), chance.gauss(0, 0.3)
        for number, side in enumerate(sides):
            rate = 100 * math.exp(weather + chance.gauss(0, 0.005)) * (1 + change) ** number
            side.setdefault(cell, []).append(timed(2 * turn + (number + turn) % 2, rate, is_value=is_value))
    return turns_of("pair", *sides)


def test_a_change_is_told_through_weather_that_met_both_loads_of_a_turn() -> None:
    for change, verdict in ((0.0, "same"), (-0.08, "slower"), (0.08, "faster")):
        turns = arms(change)
        assert (turns.turns, turns.alone, turns.spread.df) == (12, 0, 6)
        assert 0.002 < turns.spread.sigma < 0.02
        cells = list(turns.changes.values())
        assert {one.verdict for one in rule.judge(cells, rule.Limits(0.05))} == {verdict}
        whole = rule.judge_one(turns.over_all(cells), rule.Limits(0.05))
        assert whole is not None
        assert whole.verdict == verdict


def test_too_few_turns_of_a_cell_say_nothing() -> None:
    turns = arms(-0.08, controls=2)
    assert (turns.spread.df, turns.are_known, dict(turns.changes)) == (2, False, {})
    assert turns.over_all([rule.Change(0.0, 0.01)]) is None


def test_loads_belong_together_that_are_nearest_to_one_another_and_not_far() -> None:
    a = [timed(0, 100), timed(10, 101), timed(500, 102)]
    b = [timed(1, 90), timed(11, 91), timed(900, 92)]
    assert [(one.at_s, other.at_s) for one, other in in_turns(a, b, 5 * MINUTE)] == [(0, 60), (600, 660)]
    assert in_turns(a, [], MINUTE) == []


def test_a_cell_with_a_load_that_had_no_partner_rests_on_the_loads_of_each_arm() -> None:
    a, b = {}, {}
    for number in range(8):
        a[str(number), ""] = [timed(4 * number, 100), timed(4 * number + 100, 100, choice=0)]
        b[str(number), ""] = [timed(4 * number + 1, 90), timed(4 * number + 101, 90)]
    a["0", ""] = [timed(5000, 100, choice=1)]
    found = turns_of("pair", a, b)
    assert ("0", "") not in found.changes
    assert (len(found.changes), found.alone) == (7, 3)
