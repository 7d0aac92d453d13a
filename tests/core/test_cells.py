"""Statuses, labels, and the identity of a cell: content, canonical and versioned, never a position in a grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core.cell import Cell, cell_key, content_hash
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import FAILURES, FLAG_MEANINGS, RETRIED, Flag, Status, failure_label

CELL = Cell(
    coordinates=(("num_ctx", 4096), ("num_batch", 64)),
    model="smol",
    options=(("num_batch", 64), ("num_ctx", 4096), ("num_predict", 2), ("temperature", 0.5)),
    task="prompt_eval",
    task_options=(("subject", "law"),),
    server=(("kv_cache_type", "q8_0"),),
)
REST: dict[str, Any] = {
    "engine": "ollama",
    "model_digest": "sha256:abc",
    "modelfile": '["system", "", "Be brief."]\n',
    "prompt_hash": "sha256:def",
    "task_version": 1,
}


def key(cell: Cell = CELL, **changed: Any) -> str:
    return cell_key(cell, **{**REST, **changed})


def with_option(name: str, value: Scalar) -> Cell:
    return replace(CELL, options=tuple({**dict(CELL.options), name: value}.items()))


# Identity


def test_the_key_of_version_c1_is_pinned_for_ever() -> None:
    """A change of this literal throws away every measurement people have: make it c2 instead, and keep this test."""
    assert key() == "c1:2e7369662cf5db5564b72c8f3ecfd3f6"


@pytest.mark.parametrize("name", REST)
def test_everything_beside_the_cell_changes_the_key(name: str) -> None:
    changed: dict[str, Any] = {name: 2 if name == "task_version" else REST[name] + "x"}
    assert key(**changed) != key()


@pytest.mark.parametrize(
    "cell",
    [
        with_option("num_ctx", 4097),
        with_option("num_batch", 65),
        with_option("num_predict", 3),
        with_option("temperature", 0.25),
        with_option("num_gpu", 0),
        replace(CELL, options=CELL.options[:-1]),
        replace(CELL, task="chat"),
        replace(CELL, task_options=(("subject", "algebra"),)),
        replace(CELL, task_options=()),
        replace(CELL, server=(("kv_cache_type", "f16"),)),
        replace(CELL, server=()),
    ],
    ids=str,
)
def test_every_part_of_a_cell_that_is_measured_changes_the_key(cell: Cell) -> None:
    assert key(cell) != key()


def test_no_value_is_taken_for_another_that_means_something_else() -> None:
    values: list[Scalar] = [None, True, False, 0, 1, "1", "true", "", 1.5, -1]
    assert len({key(with_option("num_gpu", value)) for value in values}) == len(values)


def test_an_option_of_the_server_is_not_one_of_the_request() -> None:
    moved = replace(CELL, server=(), options=(*CELL.options, *CELL.server))
    assert key(moved) != key()


def test_whole_numbers_are_the_same_however_they_are_written() -> None:
    assert key(with_option("num_ctx", 4096.0)) == key()
    assert key(replace(CELL, server=(("slots", 1.0),))) == key(replace(CELL, server=(("slots", 1),)))


def test_neither_position_nor_name_nor_swept_dimensions_are_identity() -> None:
    swept: Options = (("temperature", 0.5), ("num_batch", 64), ("num_ctx", 4096))
    assert key(replace(CELL, coordinates=swept)) == key()
    assert key(replace(CELL, coordinates=())) == key()
    assert key(replace(CELL, model="other-name-same-digest")) == key()


@given(st.permutations(CELL.options))
def test_the_order_of_options_is_not_identity(options: list[tuple[str, Scalar]]) -> None:
    assert key(replace(CELL, options=tuple(options))) == key()


def test_numbers_that_are_none_have_no_identity() -> None:
    with pytest.raises(ValueError):
        key(with_option("temperature", float("nan")))


def test_texts_beyond_ascii_have_a_key_of_their_own() -> None:
    assert key(modelfile="Sei knapp: ä") != key(modelfile="Sei knapp: a")
    assert content_hash("ä") == "sha256:33e6d73fee82904c8d7afb78de1154d1e8dc2a0edb08120e63df5b9385c2d9cc"


# A cell


def test_a_cell_knows_its_numbers_and_says_its_place() -> None:
    assert (CELL.num_ctx, CELL.num_batch, CELL.num_predict) == (4096, 64, 2)
    assert CELL.label() == "num_ctx 4096, num_batch 64"
    assert replace(CELL, options=()).num_ctx == 0, "left to the engine"
    with pytest.raises(TypeError):
        _ = replace(CELL, options=()).num_predict


def test_cells_share_a_load_when_only_the_request_differs() -> None:
    same = [with_option("temperature", 0.1), with_option("num_predict", 9), replace(CELL, task="chat", coordinates=())]
    assert {cell.load_key for cell in same} == {CELL.load_key}
    other = [with_option(name, 7) for name in ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread")]
    other += [with_option("use_mmap", False), replace(CELL, model="other"), replace(CELL, server=())]
    assert len({cell.load_key for cell in (CELL, *other)}) == len(other) + 1


# Statuses and labels


def test_a_status_is_open_or_final_and_only_some_final_ones_count() -> None:
    assert {status for status in Status if not status.is_final} == {
        Status.PENDING,
        Status.STARTED,
        Status.INTERRUPTED,
        Status.DISCARDED,
    }
    assert {status for status in Status if status.counts} == {Status.OK, *FAILURES}
    assert {status for status in Status if status.is_failure} == FAILURES
    assert all(status.is_final for status in FAILURES)


def test_only_failures_that_may_end_differently_are_tried_again() -> None:
    assert {str(status) for status in RETRIED} == {"crashed", "parse_error", "error"}


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        (Status.OOM, "cuda_oom", "CUDA OOM"),
        (Status.OOM, "host_oom", "OOM"),
        (Status.RESOURCE, "cuda_resource", "CUDA resource allocation error"),
        (Status.TIMEOUT, "run", "Timeout or no output"),
        (Status.ERROR, "no_statistics", "Timeout or no output"),
        (Status.PARSE_ERROR, "count_missing", "Parse error"),
        (Status.CRASHED, "assert", "Crashed"),
        (Status.TRUNCATED, "prompt_cut", "Truncated"),
        (Status.ERROR, "create", "Create failed"),
        (Status.ERROR, "unknown", "Error"),
        (Status.SKIPPED, "does_not_fit", "Does not fit"),
    ],
)
def test_labels_are_those_that_people_know(status: Status, reason: str, text: str) -> None:
    assert failure_label(status, reason) == text


def test_every_flag_is_explained() -> None:
    assert set(FLAG_MEANINGS) == set(Flag)
    assert len(set(FLAG_MEANINGS.values())) == len(Flag)
