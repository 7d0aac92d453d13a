"""An engine as another package may have it: a plain class with the methods of the contract and no base of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.outcome import Effective
from ollama_sweep.engines import fake
from ollama_sweep.engines.base import EngineInfo, EngineSettings, ModelInfo


def add_package(folder: Path, **modules: str) -> None:
    """Entry points of engines, `name=module`, as an installed package has them."""
    info = folder / "added-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n", "utf-8")
    lines = ["[ollama_sweep.engines]", *(f"{name} = {module}" for name, module in modules.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")


class Engine:
    """The scripted engine behind the same methods."""

    settable: ClassVar[frozenset[str] | None] = None
    kinds: ClassVar[frozenset[str]] = frozenset({"generate", "embed"})

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__()
        self._inner = fake.Engine(settings)

    def describe(self) -> EngineInfo:
        return replace(self._inner.describe(), name="plain")

    def models(self) -> tuple[str, ...]:
        return self._inner.models()

    def model_info(self, model: str) -> ModelInfo:
        return self._inner.model_info(model)

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        return self._inner.count_tokens(model, prompt, system=system)

    def prepare(self, cell: Cell) -> Effective:
        return self._inner.prepare(cell)

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        return self._inner.generate(cell, prompt, timeout_s, fresh=fresh)

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        return self._inner.embed(cell, texts, batch_size, timeout_s)

    def processes(self) -> tuple[int, ...]:
        return self._inner.processes()

    def release(self, *, failed: bool) -> None:
        self._inner.release(failed=failed)

    def clear(self, leftover: Leftover) -> str | None:
        return self._inner.clear(leftover)

    def close(self) -> None:
        self._inner.close()
