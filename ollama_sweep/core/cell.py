"""What a sweep is made of: cells, statuses, flags, outcomes, and the identity of a cell. No I/O."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ollama_sweep.core.options import LOAD_OPTIONS, Options, Scalar

KEY_VERSION = "c1"
MAIN_TASK = "prompt_eval"
"""The task that measures how fast the sweep's own prompt is read."""
PROMPT_TOKENS = "prompt_tokens"
"""The dimension of the prompt's wanted lengths; only cells that send the sweep's own prompt have it."""


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    `coordinates` are the swept dimensions with this cell's values, outermost first; `options` all load and request
    options sorted by name (num_ctx, num_batch and num_predict among them); `server` the settings of a managed server.
    """

    coordinates: Options
    model: str
    options: Options
    task: str = MAIN_TASK
    task_options: Options = ()
    server: Options = ()
    system: str = ""

    @property
    def num_ctx(self) -> int:
        """0 where it is not set and the engine chooses."""
        return _whole(self.option("num_ctx") or 0)

    @property
    def num_batch(self) -> int:
        """0 where it is not set and the engine chooses."""
        return _whole(self.option("num_batch") or 0)

    @property
    def num_predict(self) -> int:
        return _whole(self.option("num_predict"))

    @property
    def think(self) -> bool | str:
        """Whether, or how hard, the model is told to think before it answers."""
        told = self.option("think")
        return told if isinstance(told, bool | str) else False

    @property
    def concurrency(self) -> int:
        """How many of its task's questions are in flight at once."""
        return _whole(self.option("concurrency") or 1)

    @property
    def for_engine(self) -> Cell:
        """The cell as an engine gets it, to which every request is one of its own."""
        return replace(self, options=tuple(pair for pair in self.options if pair[0] != "concurrency"))

    def option(self, name: str) -> Scalar:
        """The value of an option; None where it is not set."""
        return dict(self.options).get(name)

    @property
    def prompt_tokens(self) -> int | None:
        """The wanted length of its prompt where that is a dimension."""
        wanted = dict(self.coordinates).get(PROMPT_TOKENS)
        return wanted if isinstance(wanted, int) else None

    @property
    def asked(self) -> tuple[str, str, int | None]:
        """Task, model and wanted length: the same for cells that send the same prompt, or ask the same questions."""
        return self.task, self.model, self.prompt_tokens

    @property
    def load_key(self) -> tuple[object, str, object]:
        """Equal for cells that can be measured in one load."""
        return (self.server, self.model, tuple(pair for pair in self.options if pair[0] in LOAD_OPTIONS))

    def label(self) -> str:
        """`num_ctx 4096, num_batch 64`: the coordinates in words."""
        return label_of(self.coordinates)


def label_of(coordinates: Iterable[tuple[str, Scalar]]) -> str:
    """The same of names and values."""
    return ", ".join(f"{name} {model_label(str(value))}" for name, value in coordinates)


def model_label(model: str) -> str:
    """A model's name for people: of a GGUF file its name without folders and ending."""
    return model.replace("\\", "/").rpartition("/")[2].removesuffix(".gguf") if model.endswith(".gguf") else model


def _whole(value: Scalar) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value


def cell_key(
    cell: Cell,
    *,
    engine: str,
    model_digest: str,
    modelfile: str,
    prompt_hash: str,
    task_version: int,
    arm: str = "",
) -> str:
    """The identity of a cell's measurement: content, canonical and versioned, never a position in a grid.

    `modelfile` is the canonical text of the template without FROM and without the options set by the sweep. `arm` is
    that of a pair where both arms would have one key; it is in no other.
    """
    content = {
        "engine": engine,
        "model_digest": model_digest,
        "modelfile": modelfile,
        "options": _canonical(cell.options),
        "server": _canonical(cell.server),
        "task": cell.task,
        "task_version": task_version,
        "task_options": _canonical(cell.task_options),
        "prompt": prompt_hash,
        **({"arm": arm} if arm else {}),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return f"{KEY_VERSION}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _canonical(options: Options) -> dict[str, Scalar]:
    return {name: _normal(value) for name, value in options}


def _normal(value: Scalar) -> Scalar:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def made_hash(tokens: int, version: int) -> str:
    """Identity of a text that is made to a length, by a version of its recipe."""
    return f"tokens:{tokens}:{version}"


def made_length(prompt_hash: str) -> int | None:
    """The length in such an identity; None for every other prompt's."""
    found = re.fullmatch(r"tokens:([0-9]{1,9}):[0-9]+", prompt_hash)
    return int(found[1]) if found else None


def content_hash(text: str) -> str:
    """`sha256:` and the hex digest of a text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
