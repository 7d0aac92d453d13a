"""A sweep as the person wrote it, checked: what `config` makes of a YAML file and the command line. No I/O.

Every field says whether it is `identity` (part of what a cell measures) or `runtime` (how it is measured);
a test fails for a field that says neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ollama_sweep.cells import Scalar

IDENTITY = {"role": "identity"}
RUNTIME = {"role": "runtime"}


@dataclass(frozen=True)
class PromptSpec:
    """The prompt: a text (from a file or given), or `tokens`, a length the text is made to on the model."""

    text: str | None = field(metadata=IDENTITY)
    tokens: int | None = field(default=None, metadata=IDENTITY)
    source: str = field(default="", metadata=RUNTIME)


@dataclass(frozen=True)
class Repeats:
    """Measured runs per attempt: at least `minimum`; up to `maximum` until their interval is `until` wide."""

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

    model: str = field(metadata=IDENTITY)
    dimensions: Mapping[str, tuple[Scalar, ...]] = field(metadata=IDENTITY)
    prompt: PromptSpec = field(metadata=IDENTITY)
    template: str = field(default="", metadata=IDENTITY)
    options: Mapping[str, Scalar] = field(default_factory=dict, metadata=IDENTITY)
    task: str = field(default="prompt_eval", metadata=IDENTITY)
    engine: str = field(default="auto", metadata=IDENTITY)
    exclude: tuple[Exclusion, ...] = field(default=(), metadata=RUNTIME)
    name: str = field(default="sweep", metadata=RUNTIME)
    template_path: Path | None = field(default=None, metadata=RUNTIME)
    config_path: Path | None = field(default=None, metadata=RUNTIME)
    warmup: int = field(default=1, metadata=RUNTIME)
    repeats: Repeats = field(default=Repeats(), metadata=RUNTIME)
    timeout_s: float = field(default=600.0, metadata=RUNTIME)
    load_timeout_s: float = field(default=600.0, metadata=RUNTIME)
    retries: int = field(default=1, metadata=RUNTIME)
    order: str = field(default="column-first", metadata=RUNTIME)
    host: str | None = field(default=None, metadata=RUNTIME)
    ollama: str | None = field(default=None, metadata=RUNTIME)
    warnings: tuple[str, ...] = field(default=(), metadata=RUNTIME)
