"""A finished sweep of very many cells, written by the benchmark's set-based SQL."""

from __future__ import annotations

import sys
from pathlib import Path

from ollama_fixture import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import pictures


def fill(folder: Path, side: int) -> Path:
    """side × side cells, of which some ran out of memory and some spilled; the path of the database."""
    pictures.fill(folder, side, is_judged=True)
    return folder / "sweeps.db"
