"""Which cells are measured again, and which one is the best then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from ollama_sweep.core.noise.spread import Spread, Spreads
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.core.stats import best_set
from ollama_sweep.results.best import describe_best
from ollama_sweep.results.second_look import best_ones, doubts

KNOWN = {"prompt_eval_rate": Spreads(Spread(0.01, 100), Spread(0.02, 10))}


def cell(num_ctx: int, num_batch: int, rate: float, *flags: Flag, wide: float = 0.02, looks: int = 0) -> CellResult:
    return CellResult(
        key=f"{num_ctx} {num_batch}",
        coordinates={"num_ctx": num_ctx, "num_batch": num_batch},
        model="m",
        task="prompt_eval",
        status=Status.OK,
        flags=frozenset(flags),
        metrics={"prompt_eval_rate": rate, "prompt_eval_rate_low": rate * (1 - wide), "looks": looks, "runs": 3,
                 "prompt_eval_rate_high": rate * (1 + wide), "loads": 1},
    )  # fmt: skip


def grid(**changed: CellResult) -> list[CellResult]:
    """Five contexts by four batches; a larger batch is quicker, a larger context a little slower."""
    rates = {64: 200.0, 128: 260.0, 256: 300.0, 512: 320.0}
    cells = {
        f"c{num_ctx}_{num_batch}": cell(num_ctx, num_batch, rate * (1 - num_ctx / 200_000))
        for num_ctx in (1024, 2048, 3072, 4096, 5120)
        for num_batch, rate in rates.items()
    }
    return list({**cells, **changed}.values())


def reasons(results: list[CellResult], loads: int = 20, spreads: Mapping[str, Spreads] = KNOWN) -> dict[str, str]:
    return {doubt.cell.key: doubt.reason for doubt in doubts(results, spreads, loads)}


def test_the_leading_group_comes_first_and_takes_its_share_at_most() -> None:
    found = reasons(grid())
    assert found == dict.fromkeys(("1024 512", "2048 512", "3072 512", "4096 512", "5120 512"), "among the best")
    assert list(reasons(grid(), loads=5)) == ["1024 512", "2048 512"]
    assert reasons(grid(), loads=1) == {}, "there is room for the best only"


@pytest.mark.parametrize(("place", "share"), [("c3072_128", 0.8), ("c3072_64", 1.25), ("c1024_64", 0.8)])
def test_a_cell_that_is_off_its_neighbours_is_doubted(place: str, share: float) -> None:
    num_ctx, num_batch = (int(part) for part in place.removeprefix("c").split("_"))
    right = {64: 200.0, 128: 260.0}[num_batch]
    found = reasons(grid(**{place: cell(num_ctx, num_batch, right * share)}))
    assert "off its neighbours" in found[f"{num_ctx} {num_batch}"]
    assert [key for key, reason in found.items() if "off" in reason] == [f"{num_ctx} {num_batch}"]


def test_a_cliff_is_no_cell_that_is_off() -> None:
    """Beyond a context everything spills and is slow: no cell is off what all around it say."""
    slow = {f"c{size}_{batch}": cell(size, batch, 40.0) for size in (4096, 5120) for batch in (64, 128, 256, 512)}
    assert not [reason for reason in reasons(grid(**slow)).values() if "off" in reason]


def test_disturbed_and_noisy_cells_are_doubted_but_not_what_cannot_be_otherwise() -> None:
    changed = {
        "c1024_64": cell(1024, 64, 199.0, Flag.NOISY),
        "c2048_64": cell(2048, 64, 198.0, Flag.BUSY, Flag.DRIFTED),
        "c3072_64": cell(3072, 64, 197.0, Flag.SPILLED, Flag.CLAMPED),
    }
    found = [(key, reason) for key, reason in reasons(grid(**changed)).items() if reason != "among the best"]
    assert found == [("2048 64", "drifted and busy"), ("1024 64", "noisy")]


def test_the_best_of_each_task_is_measured_again_before_it_is_called_so() -> None:
    assert [(doubt.cell.key, doubt.reason) for doubt in best_ones(grid())] == [("1024 512", "the best")]


def test_what_was_measured_again_as_the_best_stands_before_what_only_looks_better() -> None:
    lucky, sound = cell(1024, 512, 325.0), cell(2048, 512, 320.0, looks=2)
    best, tied = best_set([lucky, sound, cell(1024, 64, 200.0)], "prompt_eval_rate")
    assert best is sound
    assert tied == (lucky,)


def test_what_is_better_beyond_both_intervals_is_the_best_all_the_same() -> None:
    better, sound = cell(1024, 512, 400.0), cell(2048, 512, 320.0, looks=2)
    assert best_set([better, sound], "prompt_eval_rate") == (better, ())


def test_the_best_in_words_says_both_spreads_or_that_loads_are_not_known() -> None:
    assert "Spread: runs ± 1 %, loads ± 2 %." in describe_best(grid(), None, KNOWN)
    unknown = [
        CellResult(**{**vars(one), "metrics": {**{name: value for name, value in one.metrics.items()
                                                  if not name.endswith(("_low", "_high"))},
                                               "prompt_eval_rate_min": one.metrics["prompt_eval_rate"] - 1,
                                               "prompt_eval_rate_max": one.metrics["prompt_eval_rate"] + 1}})
        for one in grid()
    ]  # fmt: skip
    text = describe_best(unknown, None, {"prompt_eval_rate": Spreads(Spread(0.01, 100))})
    assert "Spread: runs ± 1 %, loads not known." in text
    assert "how far loads differ is not known" in text


def test_which_of_the_leading_group_is_measured_again_is_told_by_all_their_loads() -> None:
    """What was measured before the choice is no part of a value, and tells cells apart that were chosen alike."""
    results = [replace(one, row={"position": n}) for n, one in enumerate(
        [cell(1024, 512, 330.0, looks=1), cell(2048, 512, 320.0, looks=1), cell(3072, 512, 300.0)])]  # fmt: skip
    of_all = {0: {"prompt_eval_rate": 318.0}, 1: {"prompt_eval_rate": 321.0}}
    assert [doubt.cell.key for doubt in best_ones(results)] == ["1024 512"]
    assert [doubt.cell.key for doubt in best_ones(results, of_all)] == ["2048 512"]
    lucky = replace(cell(4096, 512, 332.0), row={"position": 9})
    assert [doubt.cell.key for doubt in best_ones([*results, lucky], of_all)] == ["2048 512"]
    beyond = replace(lucky, metrics=cell(4096, 512, 400.0).metrics)
    assert [doubt.cell.key for doubt in best_ones([*results, beyond], of_all)] == ["4096 512"]
