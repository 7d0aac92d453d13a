"""A sweep as the person wrote it, checked: what `config` makes of a YAML file and the command line. No I/O.

Every field says whether it is `identity` (part of what a cell measures) or `runtime` (how it is measured);
a test fails for a field that says neither. The small language of `exclude:` is here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS
from ollama_sweep.core.loading.controls import Rule
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.surface.goal import Goal
from ollama_sweep.machine.conditions import Conditions
from ollama_sweep.tasks.base import Setup

if TYPE_CHECKING:
    from ollama_sweep.core.strict_yaml import Node
    from ollama_sweep.store.rows import InPair


IDENTITY = {"role": "identity"}
RUNTIME = {"role": "runtime"}
DEFAULT_NUM_PREDICT = 2
"""Only prompt processing is wanted of the main task."""


@dataclass(frozen=True)
class PromptSpec:
    """The prompt: a text (from a file or given), or `tokens`, a length the text is made to on the model.

    Neither where its length is a dimension: each cell has its own then (`SweepSpec.prompt_of`).
    """

    text: str | None = field(metadata=IDENTITY)
    tokens: int | None = field(default=None, metadata=IDENTITY)
    source: str = field(default="", metadata=RUNTIME)


@dataclass(frozen=True)
class Warmup:
    """Runs before the measured ones: at least `minimum`; up to `maximum` while they still get faster."""

    minimum: int = 1
    maximum: int = 5

    @property
    def words(self) -> str:
        """`1`, or `2 to 5`: one needs another to be compared with."""
        return _from_to(max(self.minimum, min(2, self.maximum)), self.maximum)


@dataclass(frozen=True)
class Repeats:
    """Measured runs per attempt: at least `minimum`; up to `maximum` until their interval is `until` wide.

    `is_auto`: up to `maximum` where the first ones differ by more than runs do.
    """

    minimum: int = 3
    maximum: int = 6
    until: float | None = None
    is_auto: bool = True

    @property
    def words(self) -> str:
        """`3`, or `3 to 6`."""
        return _from_to(self.minimum, self.maximum)


def _from_to(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Cooldown:
    """The rest between two cells: so long, or until every GPU is at most so warm (°C); both None: none."""

    seconds: float | None = None
    gpu_c: int | None = None


@dataclass(frozen=True)
class Interim:
    """When something is done while the sweep runs: after so many cells, or seconds; both None: never."""

    cells: int | None = None
    seconds: float | None = 1800.0


@dataclass(frozen=True)
class Exclusion:
    """One `exclude:` line, e.g. `num_batch > num_ctx`; `matches` gets a cell's dimension values and options."""

    text: str
    matches: Callable[[Mapping[str, Scalar]], bool]


@dataclass(frozen=True)
class NamedHost:
    """A server elsewhere as a lane: how the person calls it, and its address as it was written."""

    name: str
    host: str


@dataclass(frozen=True)
class SweepSpec:
    """One sweep. `dimensions` maps each swept name to its values, in the order the file gives them.

    num_ctx and num_batch are always among them where a prompt's rate is measured. `options` are load and request
    options that are not swept, num_predict among them where only the main task runs. `model` is "" where `model` is a
    dimension. `task_options` is what the file says under `tasks:`, by task; `setups` what the tasks make of it
    (`survey.with_tasks`).

    A pair has its two sweeps in `arms`, each of which has an `arm`; all else of it but the name is that of the first.
    """

    model: str = field(metadata=IDENTITY)
    dimensions: Mapping[str, tuple[Scalar, ...]] = field(metadata=IDENTITY)
    prompt: PromptSpec = field(metadata=IDENTITY)
    template: str = field(default="", metadata=IDENTITY)
    options: Mapping[str, Scalar] = field(default_factory=dict, metadata=IDENTITY)
    server: Mapping[str, Scalar] = field(default_factory=dict, metadata=IDENTITY)
    task: str = field(default=MAIN_TASK, metadata=IDENTITY)
    task_options: Mapping[str, Mapping[str, Node]] = field(default_factory=dict, metadata=RUNTIME)
    setups: Mapping[str, Setup] = field(default_factory=dict, metadata=IDENTITY)
    engine: str = field(default="auto", metadata=IDENTITY)
    engine_options: Mapping[str, str] = field(default_factory=dict, metadata=IDENTITY)
    exclude: tuple[Exclusion, ...] = field(default=(), metadata=RUNTIME)
    name: str = field(default="sweep", metadata=RUNTIME)
    template_path: Path | None = field(default=None, metadata=RUNTIME)
    config_path: Path | None = field(default=None, metadata=RUNTIME)
    warmup: Warmup = field(default=Warmup(), metadata=RUNTIME)
    repeats: Repeats = field(default=Repeats(), metadata=RUNTIME)
    timeout_s: float = field(default=600.0, metadata=RUNTIME)
    load_timeout_s: float = field(default=600.0, metadata=RUNTIME)
    retries: int = field(default=1, metadata=RUNTIME)
    reuse_duplicates: bool = field(default=False, metadata=RUNTIME)
    order: str = field(default="auto", metadata=RUNTIME)
    conditions: Conditions = field(default=Conditions(), metadata=RUNTIME)
    interim: Interim = field(default=Interim(), metadata=RUNTIME)
    control: Interim | None = field(default=None, metadata=RUNTIME)
    cooldown: Cooldown = field(default=Cooldown(), metadata=RUNTIME)
    host: str | None = field(default=None, metadata=RUNTIME)
    managed: bool = field(default=False, metadata=RUNTIME)
    gpus: tuple[int, ...] | None = field(default=None, metadata=RUNTIME)
    """A managed server for each of these GPUs, empty for every one there is; None: one server."""
    hosts: tuple[NamedHost, ...] = field(default=(), metadata=RUNTIME)
    restart_command: tuple[str, ...] = field(default=(), metadata=RUNTIME)
    ollama: str | None = field(default=None, metadata=RUNTIME)
    api_key_env: str | None = field(default=None, metadata=RUNTIME)
    goal: Goal | None = field(default=None, metadata=RUNTIME)
    settings: Mapping[str, Scalar] = field(default_factory=dict, metadata=RUNTIME)
    """Keys of the table that have no field here, by name; None where one is not given and has no default."""
    warnings: tuple[str, ...] = field(default=(), metadata=RUNTIME)
    libllama: str | None = field(default=None, metadata=RUNTIME)
    """A library to load: code, so only the command line or a program gives it, and never a key."""
    arm: InPair | None = field(default=None, metadata=RUNTIME)
    arms: tuple[SweepSpec, ...] = field(default=(), metadata=RUNTIME)

    @property
    def has_lanes(self) -> bool:
        """Several lanes measure it, each in a process of its own."""
        return self.gpus is not None or bool(self.hosts)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks of the sweep, in the order of the file."""
        return tuple(str(name) for name in self.dimensions.get("task", (self.task,)))

    @property
    def lengths(self) -> tuple[int | None, ...]:
        """The wanted lengths of the prompt where they are a dimension; else the one None."""
        return tuple(value if isinstance(value, int) else None for value in self.dimensions.get(PROMPT_TOKENS, (None,)))

    @property
    def control_rule(self) -> Rule:
        """When the control cell is measured."""
        return Rule(by_itself=True) if self.control is None else Rule(self.control.cells, self.control.seconds)

    @property
    def passes(self) -> int:
        """How often every cell is loaded."""
        return int(self.settings.get("passes") or 1)

    def has_own_prompt(self, task: str) -> bool:
        """The task sends the sweep's prompt; every other one brings questions."""
        return not self.setups.get(task, Setup()).questions

    def lengths_of(self, task: str) -> tuple[int | None, ...]:
        """The wanted lengths of what a task sends."""
        return self.lengths if self.has_own_prompt(task) else (None,)

    def prompt_of(self, length: int | None) -> PromptSpec:
        """The sweep's prompt, or where its length is a dimension the one that is so long."""
        return self.prompt if length is None else PromptSpec(None, length)
