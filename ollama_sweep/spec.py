"""A sweep as the person wrote it, checked: what `config` makes of a YAML file and the command line. No I/O.

Every field says whether it is `identity` (part of what a cell measures) or `runtime` (how it is measured);
a test fails for a field that says neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ollama_sweep.cells import Scalar


def _identity(**keywords: Any) -> Any:
    return field(metadata={"role": "identity"}, **keywords)


def _runtime(**keywords: Any) -> Any:
    return field(metadata={"role": "runtime"}, **keywords)


@dataclass(frozen=True)
class PromptSpec:
    """The prompt: a text (from a file or given), or `tokens`, a length the text is made to on the model."""

    text: str | None = _identity()
    tokens: int | None = _identity(default=None)
    source: str = _runtime(default="")


@dataclass(frozen=True)
class Repeats:
    """Measured runs per attempt: at least `minimum`; up to `maximum` until the interval is `until` (0.02 = 2 %) wide."""

    minimum: int = 3
    maximum: int = 3
    until: float | None = None


@dataclass(frozen=True)
class Exclusion:
    """One `exclude:` line, e.g. `num_batch > num_ctx`; `matches` gets a cell's dimension values and options."""

    text: str
    matches: Callable[[Mapping[str, Scalar]], bool]


@dataclass(frozen=True)
class SweepSpec:
    """One sweep. `dimensions` maps each swept name to its values, in the order the file gives them.

    num_ctx and num_batch are always among them. `options` are load and request options that are not swept,
    num_predict always among them. `model` is "" where `model` is a dimension.
    """

    model: str = _identity()
    dimensions: Mapping[str, tuple[Scalar, ...]] = _identity()
    prompt: PromptSpec = _identity()
    template: str = _identity(default="")
    options: Mapping[str, Scalar] = _identity(default_factory=dict)
    task: str = _identity(default="prompt_eval")
    engine: str = _identity(default="auto")
    exclude: tuple[Exclusion, ...] = _runtime(default=())
    name: str = _runtime(default="sweep")
    template_path: Path | None = _runtime(default=None)
    config_path: Path | None = _runtime(default=None)
    warmup: int = _runtime(default=1)
    repeats: Repeats = _runtime(default=Repeats())
    timeout_s: float = _runtime(default=600.0)
    load_timeout_s: float = _runtime(default=600.0)
    retries: int = _runtime(default=1)
    order: str = _runtime(default="column-first")
    host: str | None = _runtime(default=None)
    ollama: str | None = _runtime(default=None)
    warnings: tuple[str, ...] = _runtime(default=())
