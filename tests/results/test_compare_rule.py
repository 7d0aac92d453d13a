"""The rule of `compare`: it does not cry wolf, finds what changed, and says when it cannot tell."""

from __future__ import annotations

import math
import random
from itertools import count

import pytest

from ollama_sweep.core.loading.controls import controls_wanted
from ollama_sweep.core.noise.spread import Load, Spread, Spreads, load_of, spreads_of
from ollama_sweep.results.compare import rule
from ollama_sweep.results.compare.rule import Answered, Change, Limits, Measured, Noise, Verdict

LOADS, RUNS = 0.012, 0.015
"""Between loads and inside one, as logarithms."""


def load(chance: random.Random, change: float, between: float = LOADS) -> Load:
    level = 4.6 + change + chance.gauss(0, between)
    return load_of([math.exp(level + chance.gauss(0, RUNS)) for _ in range(3)])


def compared(
    seed: int,
    threshold: float,
    *,
    changed: int = 0,
    by: float = 0.0,
    controls: int = controls_wanted(200),
    noisy: float = LOADS,
) -> list[Verdict]:
    """200 cells, each in one load; the changed ones come first. `noisy` is how far the loads of B differ."""
    chance = random.Random(seed)
    cells: list[list[Measured]] = [[], []]
    spreads = []
    for side, (factor, between) in enumerate(((0.0, LOADS), (math.log1p(by), noisy))):
        loads = [[load(chance, factor * (number < changed), between)] for number in range(200)]
        spreads.append(spreads_of([*loads, [load(chance, 0.0, between) for _ in range(controls)]]))
        cells[side] = [rule.measured(own) for own in loads]
    noise = rule.noise_of(*spreads)
    changes = [rule.change(a, b, noise) for a, b in zip(*cells, strict=True)]
    return [one.verdict for one in rule.judge(changes, Limits(threshold))]


def alarms(verdicts: list[Verdict]) -> bool:
    return Verdict.SLOWER in verdicts or Verdict.FASTER in verdicts


def test_what_did_not_change_hardly_ever_shows_a_change_and_what_did_is_found() -> None:
    """A small form of benchmarks/compare.py, by fixed seeds: as many controls as such a sweep has by itself."""
    seeds = range(4)
    assert not any(alarms(compared(seed, 0.05)) for seed in seeds)
    assert not any(alarms(compared(seed, 0.03, controls=5)) for seed in seeds)
    of_five = [compared(seed, 0.05, changed=5, by=-0.15) for seed in seeds]
    assert all(Verdict.SLOWER in verdicts[:5] for verdicts in of_five)
    assert not any(alarms(verdicts[5:]) for verdicts in of_five)
    assert sum(verdicts[:5].count(Verdict.SLOWER) for verdicts in of_five) >= 0.85 * 20
    of_forty = [compared(seed, 0.03, changed=40, by=-0.08) for seed in seeds]
    assert all(Verdict.SLOWER in verdicts[:40] for verdicts in of_forty)
    assert not any(alarms(verdicts[40:]) for verdicts in of_forty)


def test_a_noisy_side_is_not_judged_by_the_quiet_one() -> None:
    assert sum(alarms(compared(seed, 0.05, noisy=0.05)) for seed in range(3)) == 0
    assert sum(alarms(compared(seed, 0.05, noisy=0.16, controls=4)) for seed in range(3)) == 0


def test_a_noisy_cell_is_usual_only_among_enough_of_its_kind() -> None:
    """Three runs of which the flag says that they differ by more than 10 %, whatever else is known of them."""
    for squares in (0.0, 0.006, 0.02):
        of = Measured(4.6, 3, 1, squares)
        assert not rule.is_usual(of, Spreads(Spread(0.015, 400)))
        assert rule.is_usual(of, Spreads(Spread(0.07, 400)))
        assert not rule.is_usual(of, Spreads(Spread(0.07, rule.RUNS_OWN_FROM + 1)))
    assert not rule.is_usual(Measured(4.6, 3, 1, 0.2), Spreads(Spread(0.07, 400)))
    assert not rule.is_usual(Measured(4.6, 1, 1), Spreads(Spread(0.07, 400)))


KNOWN = Noise(Spreads(Spread(0.01, 100), Spread(0.01, 50)), Spreads(Spread(0.01, 100), Spread(0.01, 50)))


def judged(
    ratio: float, better: int = 1, threshold: float = 0.05, *, loads: int = 5, noise: Noise = KNOWN
) -> rule.Judged:
    a, b = Measured(0.0, 3 * loads, loads), Measured(math.log(ratio), 3 * loads, loads)
    return rule.judge([rule.change(a, b, noise)], Limits(threshold, better), missing=noise.missing)[0]


def test_the_words_follow_what_is_better_and_where_the_interval_lies() -> None:
    words = {0.5: "slower", 0.9: "slower", 0.949: "cannot tell", 1.0: "same", 1.04: "cannot tell", 1.2: "faster"}
    for ratio, word in words.items():
        found = judged(ratio)
        assert found.verdict == word, ratio
        assert found.ratio == pytest.approx(ratio)
        assert found.low is not None
        assert found.high is not None
        assert found.low < ratio < found.high
        assert (found.verdict is Verdict.SAME) == (found.low >= 0.95 and found.high <= 1.05)
        mirrored = {"slower": "faster", "faster": "slower"}
        assert judged(1 / ratio, -1).verdict in (mirrored.get(word, word), word), ratio
    assert judged(1.2, -1).verdict is Verdict.SLOWER
    assert judged(0.8, -1).verdict is Verdict.FASTER
    assert judged(0.999, threshold=0.0).verdict is Verdict.CANNOT_TELL
    assert judged(0.97, threshold=0.0).verdict is Verdict.SLOWER


def test_that_it_is_slower_is_ruled_out_before_it_is_the_same() -> None:
    assert judged(1.04).verdict is Verdict.CANNOT_TELL
    assert not judged(1.04).may_be_slower
    assert judged(0.96).may_be_slower
    assert judged(1.04, -1).may_be_slower


def test_so_many_more_loads_do_tell() -> None:
    for ratio in (0.93, 0.96, 0.965, 1.035, 1.04, 1.07):
        found = judged(ratio, loads=2)
        assert found.verdict is Verdict.CANNOT_TELL
        assert found.more_loads is not None
        assert judged(ratio, loads=2 + found.more_loads).verdict is not Verdict.CANNOT_TELL, ratio
        assert judged(ratio, loads=1 + found.more_loads).verdict is Verdict.CANNOT_TELL, ratio
    assert judged(0.9501, loads=2).more_loads is None


def test_without_known_loads_nothing_can_be_told() -> None:
    for df in range(5):
        noise = rule.noise_of(Spreads(Spread(0.01, 100), Spread(0.01, df // 2)),
                              Spreads(Spread(0.01, 100), Spread(0.01, df - df // 2)))  # fmt: skip
        found = judged(0.5, noise=noise)
        assert noise.is_known == (df >= 3)
        assert found.verdict == ("slower" if df >= 3 else "cannot tell")
        assert found.more_loads == (None if df >= 3 else 3 - df)
        assert (found.low is None) == (df < 3)


def test_runs_that_came_once_each_still_tell_of_loads() -> None:
    """`repeats: 1`: what differs from load to load holds both."""
    spreads = spreads_of([[load_of([value]) for value in (100.0, 101.0, 99.0, 100.5)]])
    assert rule.noise_of(spreads, spreads).is_known
    assert judged(0.9, noise=rule.noise_of(spreads, spreads)).verdict is Verdict.SLOWER


def test_values_that_never_differ_are_told_exactly() -> None:
    """Sizes are the same in every load."""
    exact = spreads_of([[load_of([1e9]), load_of([1e9])] for _ in range(3)])
    noise = rule.noise_of(exact, exact)
    assert judged(1.06, -1, noise=noise).verdict is Verdict.SLOWER
    assert judged(1.04, -1, noise=noise).verdict is Verdict.SAME


def test_over_all_is_the_mean_of_all_cells() -> None:
    cells = [(Measured(0.0, 3, 1), Measured(math.log(ratio), 3, 1)) for ratio in (0.9, 0.9, 1.0, 1.0)]
    found = rule.change_over_all(cells, KNOWN)
    assert found is not None
    assert math.exp(found.log_ratio) == pytest.approx(0.9**0.5)
    single = rule.change(*cells[0], KNOWN).standard_error
    assert found.standard_error == pytest.approx((single or 0) / 2)
    assert rule.change_over_all([], KNOWN) is None


def test_cells_of_one_load_are_no_loads_of_their_own() -> None:
    """What a load had by chance does not average out over the cells that were measured in it."""
    alone = [(Measured(0.0, 3, 1), Measured(-0.1, 3, 1))]
    many = alone * 4
    one, of_one_load, of_four, in_pairs = (
        rule.change_over_all(cells, KNOWN, loads)
        for cells, loads in ((alone, [0]), (many, [0, 0, 0, 0]), (many, [0, 1, 2, 3]), (many, [0, 0, 1, 1]))
    )
    errors = [found.standard_error or 0.0 for found in (one, of_one_load, of_four, in_pairs) if found is not None]
    runs, loads = KNOWN.a.runs.sigma**2 * math.pi / 2 / 3, KNOWN.a.loads.sigma**2
    expected = [runs + loads, runs / 4 + loads, (runs + loads) / 4, runs / 4 + loads / 2]
    assert errors == pytest.approx([math.sqrt(2 * variance) for variance in expected], rel=0.01)
    passes = [(Measured(0.0, 6, 2), Measured(-0.1, 6, 2))] * 2
    found = rule.change_over_all(passes, KNOWN, [0, 0])
    assert found is not None
    shared = 2 * (runs / 4 + (loads / 2 + loads / 4) / 2)
    assert found.standard_error == pytest.approx(math.sqrt(shared), rel=0.01), "of two loads of each one is the same"


# -- scores and answers ------------------------------------------------------------------------------------------------


def answers(right: int, of: int) -> dict[str, float]:
    return {f"question {number}": float(number < right) for number in range(of)}


def told(change: Change | None) -> Verdict:
    assert change is not None
    return rule.judge([change], Limits(0.05))[0].verdict


def test_a_score_is_told_by_the_questions_that_both_were_asked() -> None:
    assert told(rule.change_of_scores(answers(8, 10), answers(8, 10))) is Verdict.CANNOT_TELL
    assert told(rule.change_of_scores(answers(800, 1000), answers(800, 1000))) is Verdict.SAME
    assert told(rule.change_of_scores(answers(800, 1000), answers(600, 1000))) is Verdict.SLOWER
    assert told(rule.change_of_scores(answers(600, 1000), answers(800, 1000))) is Verdict.FASTER
    half = {name: value for name, value in answers(600, 1000).items() if int(name.split()[1]) % 2}
    assert told(rule.change_of_scores(answers(800, 1000), half)) is Verdict.SLOWER
    assert rule.change_of_scores(answers(0, 10), answers(5, 10)) is None
    assert rule.change_of_scores(answers(1, 1), answers(1, 1)) is None


def test_long_and_short_answers_are_no_noise() -> None:
    """The time of an answer hangs on the question: 100 times between the shortest and the longest, 1 % between runs."""
    chance, number = random.Random(3), count()

    def side(factor: float) -> Answered:
        next(number)
        return Answered(tuple((str(q), 10 ** (q / 10) * factor * math.exp(chance.gauss(0, 0.01))) for q in range(20)))

    paired = rule.paired_by_question([side(1.0)], [side(1.1)])
    assert paired is not None
    a, b = paired
    assert rule.measured(b).log_value - rule.measured(a).log_value == pytest.approx(math.log(1.1), abs=0.01)
    assert spreads_of([a, b]).runs.sigma == pytest.approx(0.01, rel=0.5)
    assert rule.paired_by_question([side(1.0)], [Answered((("another", 1.0),))]) is None
