"""An engine `openai` on a scripted server, and how it is asked; for the tests of that engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openai_server import (
    Scripted,
    chunk,
    end,
    scripted_server,
    stream,
    usage,
)  # fmt: skip

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.options import Options
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.openai.engine import Engine

KEY = "sk-very-secret-4711/abc"
WHOLE = stream(chunk("Hello"), chunk(" world"), end(), usage(12, 2))
TIMEOUT_S = 60.0


@pytest.fixture(autouse=True)
def _no_settings_of_the_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LLM_BASE_URL", "LLM_API_KEY", "OLLAMA_HOST", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as made:
        yield made


@pytest.fixture
def said_lines() -> list[str]:
    return []


@pytest.fixture
def engine(server: Scripted, said_lines: list[str]) -> Iterator[Engine]:
    settings = EngineSettings(host=server.host, say=said_lines.append, trace=said_lines.append)
    with closing(Engine(settings)) as made:
        yield made


def cell(model: str = "small-model", system: str = "", **options: Any) -> Cell:
    given: Options = tuple(sorted({"num_predict": 8, **options}.items()))
    return Cell((), model, given, system=system)


def ask(engine: Engine, timeout_s: float = TIMEOUT_S, **options: Any) -> Generation:
    return engine.generate(cell(**options), "Hello?", timeout_s)


def failure(engine: Engine, timeout_s: float = TIMEOUT_S) -> CellFailed:
    with pytest.raises(CellFailed) as caught:
        ask(engine, timeout_s)
    assert "\n" not in caught.value.error
    return caught.value
