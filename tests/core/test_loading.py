"""What a cell needs after the one before it, and what that costs by what was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.forecast import Took, Work, WorkLeft, forecast
from ollama_sweep.core.loading.change import Change, Loading, change, change_by, counted
from ollama_sweep.core.units import parameters_of

KEPT, RELOAD, MODEL, RESTART = Change.KEPT, Change.RELOAD, Change.MODEL, Change.RESTART
CELL = Cell((), "m", (("num_batch", 64), ("num_ctx", 512), ("temperature", 0)))


def cell(model: str = "m", num_ctx: int = 512, temperature: float = 0, flash: bool | None = None) -> Cell:
    options = (("num_batch", 64), ("num_ctx", num_ctx), ("temperature", temperature))
    return replace(CELL, model=model, options=options, server=() if flash is None else (("flash_attention", flash),))


def test_what_a_cell_needs_is_the_dearest_thing_that_differs() -> None:
    before = cell(flash=True).load_key
    after = {
        cell(flash=True): KEPT,
        cell(flash=True, temperature=1): KEPT,
        cell(flash=True, num_ctx=1024): RELOAD,
        cell("other", 1024, flash=True): MODEL,
        cell("other", 1024, flash=False): RESTART,
    }
    assert {each: change(before, each.load_key) for each in after} == after
    assert change(before, cell(flash=True).load_key, is_released=True) is RELOAD
    assert change(None, cell().load_key) is MODEL, "nobody knows what is in memory"
    assert change(None, cell(flash=True).load_key) is RESTART
    assert [change_by(name) for name in ("flash_attention", "LLAMA_ARG_THREADS", "model", "num_gpu", "seed")] == [
        RESTART, RESTART, MODEL, RELOAD, KEPT,
    ]  # fmt: skip


def test_a_change_of_model_that_comes_with_a_restart_counts_as_both() -> None:
    some = [cell("a", flash=True), cell("a", flash=True, temperature=1), cell("b", flash=False), cell("b", flash=True)]
    assert counted(some) == Loading(cells=4, loads=3, models=1, restarts=2)
    assert counted(some).kept == 1


# -- the time left -----------------------------------------------------------------------------------------------------

COSTS_S = {KEPT: 1.0, RELOAD: 60.0, MODEL: 100.0, RESTART: 130.0}
RUNS_S = {"a": 10.0, "b": 40.0}


def measured(*kinds: tuple[str, Change]) -> list[Took]:
    """Cells of these models that needed this, the newest first."""
    return [
        Took(number, COSTS_S[needs] + RUNS_S[model], Work("prompt_eval", 100, 1, model, needs), RUNS_S[model])
        for number, (model, needs) in enumerate(kinds)
    ]


def left_s(history: list[Took], *coming: tuple[str, Change]) -> float:
    work: dict[Work, float] = {}
    for model, needs in coming:
        one = Work("prompt_eval", None, 1, model, needs)
        work[one] = work.get(one, 0) + 1
    found = forecast(history, len(coming), work=WorkLeft(work)).seconds_left
    assert found is not None
    return found


def test_the_time_left_is_that_of_what_the_cells_to_come_need_and_not_of_what_the_last_ones_needed() -> None:
    history = measured(*[("a", KEPT)] * 30, *[("a", RELOAD)] * 5, ("b", MODEL), ("b", RESTART), ("a", MODEL))
    assert left_s(history, *[("a", KEPT)] * 10) == pytest.approx(110)
    assert left_s(history, *[("a", RELOAD)] * 10) == pytest.approx(700)
    assert left_s(history, ("b", RESTART), ("b", MODEL), ("a", KEPT)) == pytest.approx(130 + 40 + 100 + 40 + 11)


def test_what_a_model_has_not_needed_yet_is_told_by_its_own_reloads_and_by_what_others_needed_more() -> None:
    """b reloads in 60 s as a does, so a restart takes it 70 s more, as it takes a."""
    history = measured(("a", RELOAD), ("a", RESTART), ("b", RELOAD))
    assert left_s(history, ("b", RESTART)) == pytest.approx(130 + 40)
    slower = [replace(one, seconds=one.seconds + 200) if one.work.model == "b" else one for one in history]
    assert left_s(slower, ("b", RESTART)) == pytest.approx(200 + 130 + 40)


def test_what_nobody_needed_yet_is_told_by_what_is_nearest() -> None:
    history = measured(*[("a", RELOAD)] * 4)
    assert left_s(history, ("a", RESTART)) == left_s(history, ("a", MODEL)) == pytest.approx(70)
    assert left_s(history, ("a", KEPT)) == pytest.approx(10), "nothing is loaded for it"
    assert left_s(history, ("b", MODEL)) == pytest.approx(70), "of another model nothing is known"


def test_a_cell_that_was_tried_twice_needed_what_its_first_attempt_did() -> None:
    history = [Took(1, 70.0, Work("prompt_eval", 100, 1, "a", RELOAD), 10.0),
               Took(1, 100.0, Work("prompt_eval", None, 1, "a", MODEL), 0.0)]  # fmt: skip
    assert left_s(history, ("a", MODEL)) == pytest.approx(170)


def test_less_is_known_of_another_model_than_of_the_one_that_was_measured() -> None:
    history = measured(*[("a", RELOAD)] * 40)
    own, other = (
        forecast(history, 100, work=WorkLeft({Work("prompt_eval", None, 1, model, RELOAD): 1.0}))
        for model in ("a", "b")
    )
    assert None not in (own.seconds_left_high, other.seconds_left_high)
    assert (own.seconds_left_high or 0) - (own.seconds_left or 0) < (other.seconds_left_high or 0) - (
        other.seconds_left or 0
    )


def test_a_model_that_was_not_measured_is_told_by_others_as_its_parameters_are() -> None:
    history = [replace(one, work=replace(one.work, parameters=1e9)) for one in measured(*[("a", RELOAD)] * 5)]
    work = WorkLeft({Work("prompt_eval", None, 1, "b", RELOAD, 3e9): 1.0})
    assert forecast(history, 10, work=work).seconds_left == pytest.approx(3 * 700)
    unknown = WorkLeft({Work("prompt_eval", None, 1, "b", RELOAD): 1.0})
    assert forecast(history, 10, work=unknown).seconds_left == pytest.approx(700)


@pytest.mark.parametrize(("text", "count"), [("134.52M", 134.52e6), ("8.0B", 8e9), ("3b", 3e9), ("1.1 T", 1.1e12)])
def test_the_parameters_of_a_model_as_engines_write_them(text: str, count: float) -> None:
    assert parameters_of(text) == pytest.approx(count)


@pytest.mark.parametrize("text", [None, "", "large", "8x7B", "7"])
def test_what_says_no_number_of_parameters(text: str | None) -> None:
    assert parameters_of(text) is None
