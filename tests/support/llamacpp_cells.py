"""Cells of the embedded engine, and whether its package is here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from ollama_fixture import skip_outside_ci

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.options import Scalar

WAIT_S = 60


def make_cell(model: str | Path, num_ctx: int, num_batch: int, **options: Scalar) -> Cell:
    """One thread: two that wait for each other are slow where other tests keep the cores busy."""
    given: dict[str, Scalar] = {
        "num_ctx": num_ctx,
        "num_batch": num_batch,
        "num_predict": 2,
        "num_thread": 1,
        **options,
    }
    return Cell((("num_ctx", num_ctx), ("num_batch", num_batch)), str(model), tuple(sorted(given.items())))


@pytest.fixture
def needs_xllamacpp() -> None:
    """Skips, or in CI fails, where the package is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        skip_outside_ci("xllamacpp is not installed")
