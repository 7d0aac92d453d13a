"""The columns of the view `results` for another program: what each holds, in words, with its unit. Pure.

Words and units of numbers are those of `core.metrics`, those of options of `core.options`; the rest stands here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ollama_sweep.core.cell import PROMPT_TOKENS
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.metrics import metric
from ollama_sweep.core.options import OPTIONS, SERVER_OPTIONS

_OPTIONS = {option.name: option for option in (*OPTIONS, *SERVER_OPTIONS)}
_WORDS = {
    "sweep": "name of the sweep",
    "engine": "what answered: ollama, llamacpp, ...; imported for results of an older file",
    "model": "name or path, as the sweep has it",
    "num_ctx": "context that was asked for; null where it was left to the engine",
    "num_batch": "batch that was asked for; null where it was left to the engine",
    PROMPT_TOKENS: "length of the prompt that was asked for",
    "concurrency": "questions in flight at once",
    "think": "whether the model may think, and how much",
    "task": "what was asked: prompt_eval, chat, ...",
    "status": "ok, or how it failed, or why there is no number yet",
    "flags": "what else is true of the number, joined with commas",
    "attempts": "attempts that count; an interrupted one does not",
    "runs": "believed runs behind the numbers, over all loads",
    "loads": "loads of the model behind the numbers",
    "looks": "how often a second look chose the cell for its value",
    "quantization": "how the weights are quantized, such as Q4_K_M",
    "parameter_size": "how many parameters the model has, such as 3.2B",
    "reason": "a short word beside the status, such as cuda_oom",
    "error": "the engine's own text of the failure",
    "started_at": "when the attempt that counts, or the one that runs now, began",
    "finished_at": "when the attempt that counts ended",
    "position": "place in the sweep's order, from 0",
    "cell": "the cell's key: equal in two sweeps that share its measurement",
}
_UNITS = {"num_ctx": "tokens", "num_batch": "tokens", PROMPT_TOKENS: "tokens", "started_at": "UTC",
          "finished_at": "UTC", "effective_num_ctx": "tokens", "effective_num_batch": "tokens"}  # fmt: skip
KINDS: Mapping[type, str] = {bool: "BOOLEAN", int: "INTEGER", float: "REAL", str: "TEXT"}
_WHOLE = frozenset({PROMPT_TOKENS, "concurrency"})


@dataclass(frozen=True)
class Column:
    """A column: `kind` is INTEGER, REAL, TEXT or BOOLEAN; `unit` is "" for what has none."""

    name: str
    kind: str
    words: str
    unit: str = ""

    @property
    def text(self) -> str:
        """`prompt processing speed (tokens/s, higher is better)`."""
        better = "" if self.name in _WORDS else _metric(self.name)[2]
        more = ", ".join(filter(None, (self.unit, better)))
        return f"{self.words} ({more})" if more else self.words


def described(types: Mapping[str, str]) -> list[Column]:
    """The columns of a database, whose types `Reader.result_types` says; a dimension has that of its option."""
    return [_column(name, kind) for name, kind in types.items()]


def known(types: Mapping[str, str]) -> dict[str, str]:
    """Those of which somebody says what they are."""
    return {name: kind for name, kind in types.items() if name in _WORDS or _metric(name)[3]}


def names(columns: Iterable[Column]) -> list[str]:
    return [column.name for column in columns]


def _column(name: str, kind: str) -> Column:
    if kind == "dimension":
        option = _OPTIONS.get(name.removeprefix("dimension_"))
        whole = "INTEGER" if name in _WHOLE else "TEXT"
        kind = KINDS[option.kind] if option else whole
        words = _WORDS.get(name) or (option.words if option else "")
        return Column(name, kind, words or name.replace("_", " "), _UNITS.get(name, ""))
    words, unit, *_ = _metric(name)
    return Column(name, kind, _WORDS.get(name, words), _UNITS.get(name, unit))


def _metric(name: str) -> tuple[str, str, str, bool]:
    """Words, unit, direction, and whether somebody declares it; of what cannot be the name of a metric, its words."""
    try:
        found = metric(name)
    except ConfigError:
        return name.replace("_", " "), "", "", False
    return found.words, found.unit, found.direction, found.is_declared
