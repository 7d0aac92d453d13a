"""Which cells a sweep has, in which order, and what can be said of them before any runs."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace
from weakref import WeakSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.loading.change import counted
from ollama_sweep.core.loading.controls import Rule, controls_wanted, due
from ollama_sweep.core.options import Scalar
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.plan import fit, grid
from ollama_sweep.plan.exclude import parse_exclusion
from ollama_sweep.plan.spec import PromptSpec, SweepSpec
from ollama_sweep.tasks.base import Question, Setup

MODEL = ModelInfo("m", "sha256:m", context_length=8192, size_bytes=98_000_000, kv_bytes_per_token=23_040)
ORDERS = ("auto", "column-first", "columns-bisected", "row-first", "shuffled")


def spec(order: str = "column-first", exclude: str = "", **dimensions: tuple[Scalar, ...]) -> SweepSpec:
    both: dict[str, tuple[Scalar, ...]] = {"num_ctx": (512, 1024, 2048), "num_batch": (2, 4), **dimensions}
    kinds = {name: type(values[0]) for name, values in both.items()}
    return SweepSpec(
        model="m",
        dimensions=both,
        prompt=PromptSpec("one two"),
        options={"num_predict": 2},
        order=order,
        exclude=(parse_exclusion(exclude, kinds, "s.yaml:1"),) if exclude else (),
    )


def places(some: SweepSpec) -> list[tuple[Scalar, ...]]:
    return [tuple(value for _, value in cell.coordinates) for cell in grid.cells(some)]


def cell(num_ctx: int, num_batch: int = 64, num_predict: int = 2) -> Cell:
    options = (("num_batch", num_batch), ("num_ctx", num_ctx), ("num_predict", num_predict))
    return Cell(options[:2], "m", options)


# Order


def test_column_first_finishes_one_context_before_the_next() -> None:
    assert places(spec()) == [(512, 2), (512, 4), (1024, 2), (1024, 4), (2048, 2), (2048, 4)]


def test_row_first_finishes_one_batch_before_the_next() -> None:
    assert places(spec("row-first")) == [(2, 512), (2, 1024), (2, 2048), (4, 512), (4, 1024), (4, 2048)]


def test_bisected_columns_stay_whole_and_show_the_range_early() -> None:
    contexts = tuple(range(1, 10))
    found = places(spec("columns-bisected", num_ctx=contexts))
    assert [place[0] for place in found[::2]] == [1, 9, 5, 3, 7, 2, 4, 6, 8]
    assert [place[1] for place in found] == [2, 4] * 9


@given(st.integers(0, 300))
def test_bisection_takes_each_value_once_and_halves_every_gap_before_the_next_level(size: int) -> None:
    order = [int(str(value)) for value in grid.bisected(range(size))]
    assert sorted(order) == list(range(size))
    assert order[:2] == [0, size - 1][: len(order)]
    for level in range(1, 9):
        seen = sorted(order[: 2**level + 1])
        gaps = [high - low for low, high in itertools.pairwise(seen)]
        assert max(gaps, default=0) <= math.ceil((size - 1) / 2**level)


def test_bisection_of_values_that_repeat_in_size_keeps_their_places() -> None:
    assert grid.bisected(("a", "b", "c", "d", "e")) == ["a", "e", "c", "b", "d"]


def test_shuffled_is_another_order_and_the_same_at_every_start() -> None:
    values = tuple(range(1, 20))
    found, again = (places(spec("shuffled", num_ctx=values, num_batch=values)) for _ in range(2))
    plain = places(spec(num_ctx=values, num_batch=values))
    assert found == again != plain
    assert set(found) == set(plain)
    assert len(found) == len(plain)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_has_the_same_cells(order: str) -> None:
    found = grid.cells(spec(order))
    assert len(found) == 6
    assert {(each.num_ctx, each.num_batch) for each in found} == set(places(spec()))


def test_controls_take_at_most_a_tenth_of_the_time_and_are_enough_to_compare_where_that_is_possible() -> None:
    wanted = {loads: controls_wanted(loads) for loads in (4, 5, 50, 64, 100, 200, 400, 1000, 1_000_000)}
    assert wanted == {4: 0, 5: 5, 50: 5, 64: 6, 100: 10, 200: 16, 400: 16, 1000: 40, 1_000_000: 40_000}


@given(st.integers(1, 2000), st.data())
def test_as_many_controls_are_to_come_as_will_be_due(total: int, data: st.DataObject) -> None:
    left = data.draw(st.integers(0, total))
    done = total - left
    made = due(done, total) if done else 0
    assert Rule(by_itself=True).to_come(left, total, is_new=not done) == due(total, total) - made


def test_controls_after_so_many_cells_and_never() -> None:
    some = {left: Rule(cells=50).to_come(left, 200, is_new=False) for left in (200, 120, 100, 50, 49, 0)}
    assert some == {200: 4, 120: 3, 100: 2, 50: 1, 49: 1, 0: 0}
    assert Rule().to_come(120, 200, is_new=True) == 0
    for rule in (Rule(), Rule(cells=50), Rule(seconds=1800.0), Rule(by_itself=True)):
        assert Rule.stored(json.loads(json.dumps(rule.as_dict()))) == rule


def test_models_lie_outside_further_dimensions_and_tasks_inside() -> None:
    further = spec(task=("prompt_eval", "chat"), num_gpu=(0, 9), model=("a", "b"), seed=(1,))
    assert grid.nesting(further) == ("model", "num_gpu", "seed", "num_ctx", "num_batch", "task")
    assert grid.nesting(replace(further, order="row-first"))[-3:] == ("num_batch", "num_ctx", "task")
    found = grid.cells(further)
    assert [each.model for each in found] == ["a"] * 24 + ["b"] * 24
    assert [each.task for each in found[:4]] == ["prompt_eval", "chat"] * 2
    assert found[0].options == (("num_batch", 2), ("num_ctx", 512), ("num_gpu", 0), ("num_predict", 2), ("seed", 1))


# Seldom changed


def changes_of(some: SweepSpec) -> tuple[int, int, int]:
    found = counted(grid.each_cell(some))
    return found.loads, found.models, found.restarts


Values = dict[str, tuple[Scalar, ...]]
FLASH: Values = {"flash_attention": (False, True)}


def test_auto_changes_models_and_servers_as_seldom_as_can_be_and_loads_nothing_twice() -> None:
    """Of 3 models × 2 settings × 6 sizes × 3 temperatures."""
    some: Values = {"temperature": (0, 0.5, 1), **FLASH, "model": ("a", "b", "c"), "prompt_tokens": (100, 200)}
    assert changes_of(spec("auto", "", **some)) == (36, 2, 3), "one load a configuration; no model comes back"
    assert changes_of(spec("column-first", "", **some)) == (108, 5, 1), "as it was, and is where it is asked for"
    order = grid.cells(spec("auto", "", **some))
    assert [each.model for each in order] == ["a"] * 72 + ["b"] * 72 + ["c"] * 72
    servers = [value for value, _ in itertools.groupby(dict(each.server)["flash_attention"] for each in order)]
    assert servers == [False, True, False, True], "the next model begins with the server that runs"
    assert len({each.load_key for each in order}) == 36


def test_auto_is_column_first_where_every_cell_is_a_reload() -> None:
    loads: Values = {"num_gpu": (0, 9), "num_thread": (1, 2)}
    alike: list[Values] = [{}, loads, {"model": ("a", "b")}, {"prompt_tokens": (100, 200)}]
    for some in alike:
        assert places(spec("auto", "", **some)) == places(spec("column-first", "", **some))
        assert grid.order_of(spec("auto", "", **some)) == "column-first", "a plan that is stored stays what it is"
    others: list[Values] = [{"seed": (1, 2)}, {"model": ("a", "b"), **FLASH}]
    assert [grid.order_of(spec("auto", "", **some)) for some in others] == ["auto", "auto"]


def test_a_task_that_asks_a_model_of_its_own_is_measured_together_with_its_model() -> None:
    asks = {"embeddings": Setup(model="small", questions=(Question("q", "", texts=("a",)),)), "chat": Setup()}
    some = replace(spec("auto", task=("embeddings", "chat"), model=("a", "b", "small")), setups=asks)
    found = grid.cells(some)
    assert [model for model, _ in itertools.groupby(each.model for each in found)] == ["small", "a", "b"]
    assert len(found) == len(grid.cells(replace(some, order="column-first"))) == 36


# What is left out


def test_excluded_cells_are_gone_and_the_rest_keeps_its_order() -> None:
    assert places(spec(exclude="num_ctx * num_batch > 2048")) == [(512, 2), (512, 4), (1024, 2)]


def test_an_exclusion_may_name_what_is_not_swept() -> None:
    line = parse_exclusion("num_predict == 2 and num_batch == 4", {"num_predict": int, "num_batch": int}, "s.yaml:1")
    assert {place[1] for place in places(replace(spec(), exclude=(line,)))} == {2}


def test_excluding_everything_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="exclude leaves no cell"):
        grid.cells(spec(exclude="num_ctx > 0"))


@pytest.mark.parametrize(
    ("num_ctx", "num_predict", "tokens", "fitting"),
    [
        (1024, 2, 1021, True),
        (1024, 2, 1022, False),
        (1024, 23, 1000, True),
        (1024, 24, 1000, False),
        (16384, 2, 8189, True),
        (16384, 2, 8190, False),
    ],
)
def test_prompt_answer_and_one_more_token_must_fit_what_the_model_was_trained_for(
    num_ctx: int, num_predict: int, tokens: int, fitting: bool
) -> None:
    assert fit.fits(cell(num_ctx, num_predict=num_predict), MODEL, tokens) is fitting


def test_a_model_that_does_not_say_its_length_is_taken_at_its_word() -> None:
    assert fit.fits(cell(10**6), replace(MODEL, context_length=None), 900_000)


# What repeats itself


@pytest.mark.parametrize(
    ("num_ctx", "num_batch", "really"),
    [
        (512, 64, (512, 64)),
        (513, 64, (768, 64)),
        (512, 2048, (512, 512)),
        (8192, 64, (8192, 64)),
        (9000, 64, (8192, 64)),
        (16384, 10_000, (8192, 8192)),
    ],
)
def test_the_engine_pads_caps_and_clamps(num_ctx: int, num_batch: int, really: tuple[int, int]) -> None:
    assert fit.physical(cell(num_ctx, num_batch), MODEL) == really


def test_cells_that_become_the_same_are_named() -> None:
    found = grid.cells(spec(num_ctx=(512, 8192, 9000), num_batch=(256, 512, 1024)))
    groups = [[each.label() for each in group] for group in fit.repeating(found, {"m": MODEL})]
    assert groups == [
        ["num_ctx 512, num_batch 512", "num_ctx 512, num_batch 1024"],
        ["num_ctx 8192, num_batch 256", "num_ctx 9000, num_batch 256"],
        ["num_ctx 8192, num_batch 512", "num_ctx 9000, num_batch 512"],
        ["num_ctx 8192, num_batch 1024", "num_ctx 9000, num_batch 1024"],
    ]


def test_cells_that_differ_otherwise_do_not_repeat() -> None:
    found = grid.cells(spec(num_ctx=(512,), num_batch=(1024,), num_gpu=(0, 1), model=("a", "b")))
    assert fit.repeating(found, {"a": MODEL, "b": MODEL}) == []
    cached = [replace(each, server=(("kv_cache_type", kind),)) for each in found[:1] for kind in ("f16", "q8_0")]
    assert fit.repeating(cached, {"a": MODEL}) == []


# Memory


def test_the_kv_cache_of_smollm2_is_180_mib_at_8192() -> None:
    assert fit.kv_cache_bytes(8192, MODEL) == 180 * 1024 * 1024
    assert fit.load_bytes(8192, MODEL) == 180 * 1024 * 1024 + 98_000_000


def test_the_kv_cache_is_padded_and_capped() -> None:
    assert fit.kv_cache_bytes(1, MODEL) == fit.kv_cache_bytes(256, MODEL) == 256 * 23_040
    assert fit.kv_cache_bytes(100_000, MODEL) == fit.kv_cache_bytes(8192, MODEL)


def test_memory_is_not_guessed() -> None:
    assert fit.kv_cache_bytes(8192, replace(MODEL, kv_bytes_per_token=None)) is None
    assert fit.load_bytes(8192, replace(MODEL, kv_bytes_per_token=None)) is None
    assert fit.load_bytes(8192, replace(MODEL, size_bytes=None)) is None


def test_a_shuffled_order_is_that_of_all_cells_shuffled_and_keeps_none_of_them() -> None:
    alive: WeakSet[Cell] = WeakSet()
    for exclude in ("", "num_ctx > 30"):
        some = spec("shuffled", exclude, num_ctx=tuple(range(1, 41)), num_batch=tuple(range(1, 11)))
        expected = places(replace(some, order="column-first"))
        random.Random(len(expected)).shuffle(expected)
        found, most = [], 0
        for each in grid.each_cell(some):
            alive.add(each)
            most = max(most, len(alive))
            found.append(tuple(value for _, value in each.coordinates))
        assert found == expected
        assert most < 5


def test_repeats_are_counted_without_the_cells() -> None:
    some = spec(num_ctx=(512, 513, 8192, 9000), num_batch=(256, 512, 1024), num_gpu=(-1, -2))
    counted = fit.Repeats({"m": MODEL})
    for each in grid.each_cell(some):
        counted.add(each)
    groups = [tuple(each.label() for each in group) for group in fit.repeating(grid.cells(some), {"m": MODEL})]
    assert counted.groups(grid.each_cell(some)) == (len(groups), groups)
    assert len(groups) == 8
