"""The scripted engine: answers and failures of single questions, in turn, also over a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.generation import Vectors
from ollama_sweep.core.options import Options
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.fake import Engine

PLACE: Options = (("num_batch", 64), ("num_ctx", 1024))
CELL = Cell(PLACE, "m", (*PLACE, ("num_predict", 8)))
Script = Callable[..., Path]


def made() -> Engine:
    engine = Engine(EngineSettings())
    engine.prepare(CELL)
    return engine


def outcome(engine: Engine, prompt: str) -> str:
    try:
        return engine.generate(CELL, prompt, 1.0).text
    except CellFailed as failure:
        return failure.reason


def test_answers_by_a_part_of_the_prompt(fake_script: Script) -> None:
    fake_script(answers={"capital of France": "Paris", "colour": ["red and blue", "green"]})
    engine = made()
    asked = ["4711 The capital of France?", "a colour", "a colour", "a colour", "something else"]
    assert [outcome(engine, prompt) for prompt in asked] == ["Paris", "red and blue", "green", "green", "an answer"]
    found = engine.generate(CELL, "The capital of France?", 1.0)
    assert (found.eval_count, found.chunk_count, found.cached_count) == (1, 1, 0)
    assert 0 < (found.ttft_s or 0) <= found.client_duration_s


@pytest.mark.parametrize("is_restarted", [False, True])
def test_an_item_fails_as_often_as_the_script_says(fake_script: Script, tmp_path: Path, is_restarted: bool) -> None:
    fake_script(item_failures={"second": ["error", "timeout", "ok"]}, journal=str(tmp_path / "journal"))
    engine = made()
    asked = ["first", "the second", "the second", "first", "the second", "the second"]
    found = [outcome(made() if is_restarted else engine, prompt) for prompt in asked]
    assert found == ["an answer", "unknown", "run", "an answer", "an answer", "an answer"]


def test_vectors(fake_script: Script) -> None:
    fake_script(not_embedding=["m"], item_failures={"broken": ["crashed"]}, dimension=3)
    engine, cell = made(), Cell(PLACE, "e", CELL.options)
    found = engine.embed(cell, ["one text", "another"], 1, 1.0)
    assert (found.vectors, found.text) == (Vectors(2, 3), "")
    for refused, texts, status, reason in (
        (CELL, ["one"], Status.ERROR, "cannot_embed"),
        (cell, ["one", "a broken one"], Status.CRASHED, "assert"),
    ):
        with pytest.raises(CellFailed) as caught:
            engine.embed(refused, texts, 2, 1.0)
        assert (caught.value.status, caught.value.reason) == (status, reason)
    assert engine.model_info("m").capabilities == ("completion",)
    assert engine.model_info("e").capabilities == ("completion", "embedding")
