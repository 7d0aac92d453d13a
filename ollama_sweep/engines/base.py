"""The contract of an engine: what generates. One engine is one file in `engines/`; the file name is its name.

A cell's life on an engine: `prepare` (create, load, read back what is really used), `generate` once per run,
`release`. A failure that belongs to the cell is `CellFailed`; one of the surroundings is `EngineUnavailable`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.ledger import Ledger, Leftover, NoLedger
from ollama_sweep.core.outcome import Effective


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is: part of the surroundings' fingerprint."""

    name: str
    version: str
    where: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelInfo:
    """A model as the engine knows it. Sizes in bytes, lengths in tokens; None where the engine does not say.

    `kv_bytes_per_token` is that of an f16 cache: 2 · block_count · head_count_kv · (key_length + value_length).
    `capabilities` are Ollama's words (`completion`, `embedding`, …), empty where nobody says; `is_loaded` is for now.
    """

    name: str
    digest: str
    family: str | None = None
    parameter_size: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    size_bytes: int | None = None
    kv_bytes_per_token: int | None = None
    capabilities: tuple[str, ...] = ()
    is_loaded: bool | None = None


@dataclass(frozen=True)
class EngineSettings:
    """All an engine is told when it is made.

    `template` is the text of the Modelfile template ("" for none); `say` takes one line for the person;
    `trace` takes one line per started command (shown with --verbose). `managed` asks for a server of our own;
    `restart_command` brings a server that is down or stuck back. `api_key_env` names the variable with the key.
    """

    host: str | None = None
    ollama: str | None = None
    template: str = ""
    timeout_s: float = 600.0
    load_timeout_s: float = 600.0
    allow_remote: bool = False
    managed: bool = False
    restart_command: tuple[str, ...] = ()
    ledger: Ledger = field(default_factory=NoLedger)
    say: Callable[[str], None] = lambda line: None
    trace: Callable[[str], None] = lambda line: None
    extra: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    api_key_env: str | None = None


class Engine(Protocol):
    """Every engine file has a class `Engine` of this shape, made with `EngineSettings`.

    `settable` names the options and dimensions it can set; None: every one. `kinds` are the kinds of tasks it can
    measure (`task.GENERATE`, `task.EMBED`). What a sweep asks beyond that is refused before its first cell.
    """

    settable: ClassVar[frozenset[str] | None]
    kinds: ClassVar[frozenset[str]]

    def describe(self) -> EngineInfo:
        """Name, version, address. Raises EngineUnavailable."""

    def models(self) -> tuple[str, ...]:
        """The names of the installed models, sorted, without scratch models of a sweep. Raises EngineUnavailable."""

    def model_info(self, model: str) -> ModelInfo:
        """The model's digest and metadata. Raises EngineUnavailable where it is not installed."""

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        """The prompt's true number of tokens as the model sees it (template and `system` included); None if unknown.

        May load the model with a very small context. Raises EngineUnavailable or CellFailed.
        """

    def prepare(self, cell: Cell) -> Effective:
        """Load the cell's configuration, or keep it where it is loaded already. Raises CellFailed."""

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        """One generation with the prepared configuration and the cell's system prompt, streamed where that is possible.

        `fresh`: the prompt's rate counts, so nothing of it may come from a cache that does not show.
        Raises CellFailed, EngineUnavailable.
        """

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        """The vectors of these texts, asked for in batches; `client_duration_s` is the time of all of them.

        Raises CellFailed (reason `cannot_embed` where the model has no embeddings), EngineUnavailable.
        """

    def processes(self) -> tuple[int, ...]:
        """The ids of the processes that hold the model; their children count as well. Empty where that is not known."""

    def release(self, *, failed: bool) -> None:
        """End the load at hand; after a failure bring the engine to rest first. Raises EngineUnavailable."""

    def clear(self, leftover: Leftover) -> str | None:
        """Remove what a dead session left; a line that says so, or None where nothing was there."""

    def close(self) -> None:
        """Remove everything this object made. Never raises."""


EVERY_S = 10.0


class RowsDone:
    """One request. A line at most every `EVERY_S` seconds, so none for a quick one, and none at its end."""

    def __init__(self, say: Callable[[str], None], rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._rows, self._clock = say, rows, clock
        self._last = clock()

    def __call__(self, done: int) -> None:
        """So many rows are embedded by now."""
        now = self._clock()
        if done < self._rows and now - self._last >= EVERY_S:
            self._last = now
            self._say(f"Embedding: {done} of {self._rows} rows")
