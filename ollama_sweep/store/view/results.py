"""The view `results` as SQL: what it shows of each cell of a plan, and what each of its columns holds.

It shows exact numbers, never rounded: it is also what `export` and the pictures read.
"""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ollama_sweep.core.cell import PROMPT_TOKENS
from ollama_sweep.core.options import Scalar
from ollama_sweep.store import values
from ollama_sweep.store.lanes.tables import LANE, MEASURED_BY
from ollama_sweep.store.memory.tables import LEFT_OUT, SHOWN
from ollama_sweep.store.rows import DEATHS_UNTIL_PARKED, PARKED
from ollama_sweep.store.view.flags import OWN_FLAGS, flags

_BEFORE = ("sweep", "engine", "model", "num_ctx", "num_batch")
MEASURED = (
    "prompt_eval_count", "prompt_eval_rate", "prompt_eval_rate_min", "prompt_eval_rate_max", "prompt_eval_rate_low",
    "prompt_eval_rate_high", "prompt_eval_rate_corrected", "prompt_eval_duration_s", "eval_count", "eval_rate",
    "total_duration_s", "load_duration_s", "effective_num_ctx", "effective_num_batch",
    "size_bytes", "size_vram_bytes",
)  # fmt: skip
_INTERVAL = ("prompt_eval_rate_low", "prompt_eval_rate_high")
_CORRECTED = "prompt_eval_rate_corrected"
_AFTER = ("task", "status", "flags", "attempts", "runs", "loads", "looks", *MEASURED, "quantization", "parameter_size",
          "reason", "error", "started_at", "finished_at", "position", "cell")  # fmt: skip
FIXED_COLUMNS = frozenset({*_BEFORE, *_AFTER})
NUMBERS = frozenset({"num_ctx", "num_batch", "attempts", "runs", "loads", "looks", "position", *MEASURED})


def reader_of(name: str) -> Callable[[object], Scalar]:
    """How a column of the view is read; an added one holds a number or a text."""
    if name in NUMBERS:
        return values.optional_number
    return values.optional_text if name in FIXED_COLUMNS else values.optional_scalar


def as_columns(added: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Name, kind and column of what a database adds to the view; a name that is taken gets its kind in front."""
    taken = {column.lower() for column in FIXED_COLUMNS}
    for name, kind in added:
        if name in _INTERVAL:  # earlier versions stored an interval of the runs alone
            continue
        column = name if name.lower() not in taken else f"{kind}_{name}"
        taken.add(column.lower())
        yield name, kind, column


def results_sql(added: Iterable[tuple[str, str]]) -> str:
    dimensions, scores = "", ""
    for name, kind, column in as_columns(added):
        path = f"""'$."{name.replace("'", "''")}"'"""
        if name == LANE:
            dimensions += f"{MEASURED_BY} AS {LANE}, "
        elif kind == "dimension":
            places = [_json_value(place, path) for place in ("p.coordinates", "c.options", "c.server")]
            places += [_MADE_LENGTH] if name == PROMPT_TOKENS else []
            dimensions += f'COALESCE({", ".join(places)}) AS "{column}", '
        else:
            scores += f'{_score(name, path)} AS "{column}", '
    measured = ", ".join(map(_measured, MEASURED))
    shown = SHOWN.replace("plan.", "p.").replace("cells.", "c.")
    return f"""
SELECT s.name AS sweep, s.engine, COALESCE(p.model, c.model) AS model, NULLIF(c.num_ctx, 0) AS num_ctx,
    NULLIF(c.num_batch, 0) AS num_batch, {dimensions}c.task,
    {shown} AS status, {flags(OWN_FLAGS)} AS flags,
    c.attempts, COALESCE(a.runs, 0) AS runs, COALESCE(a.loads, a.runs > 0, 0) AS loads, COALESCE(a.choice, 0) AS looks,
    {measured}, {scores}
    c.quantization, c.parameter_size,
    CASE WHEN p.skip = '{LEFT_OUT}' AND c.status = 'pending' THEN p.skip ELSE c.reason END AS reason,
    CASE WHEN c.reason = '{PARKED}' THEN 'the process died {DEATHS_UNTIL_PARKED} times in a row in this cell'
         WHEN c.status = a.status THEN a.error ELSE '' END AS error,
    CASE WHEN c.status = 'started'
         THEN (SELECT o.started_at FROM attempts AS o WHERE o.cell_id = c.id ORDER BY o.number DESC LIMIT 1)
         ELSE NULLIF(a.started_at, '') END AS started_at,
    CASE WHEN c.status = 'started' THEN NULL ELSE NULLIF(a.finished_at, '') END AS finished_at,
    p.position, c.key AS cell
FROM sweeps AS s CROSS JOIN plan AS p ON p.sweep_id = s.id CROSS JOIN cells AS c ON c.id = p.cell_id
    LEFT JOIN attempts AS a ON a.id = c.attempt_id LEFT JOIN reused AS r ON r.cell_id = c.id
""".strip()


def _measured(column: str) -> str:
    if column in _INTERVAL:
        return _end("prompt_eval_rate", "a.prompt_eval_rate", column)
    if column == _CORRECTED:
        return f"a.prompt_eval_rate / (1 + (SELECT drift FROM corrections AS k WHERE k.attempt_id = a.id)) AS {column}"
    return f"a.{column}"


def _score(name: str, path: str) -> str:
    """A number of an attempt. The interval of one that has a range is that of the runs and the loads together; a mean
    over questions has its own, which is stored."""
    stem, _, end = name.rpartition("_")
    stored = _json_value("a.scores", path)
    if end not in ("low", "high") or not stem:
        return stored
    of, lowest = (_json_value("a.scores", f"""'$."{part.replace("'", "''")}"'""") for part in (stem, f"{stem}_min"))
    return f"CASE WHEN {lowest} IS NULL THEN {stored} ELSE {_bound(stem, of, end)} END"


def _end(metric: str, value: str, column: str) -> str:
    return f"{_bound(metric, value, column.rpartition('_')[2])} AS {column}"


def _bound(metric: str, value: str, end: str) -> str:
    """The value divided by the factor of its interval, or multiplied by it; NULL where that is not known."""
    name = metric.replace("'", "''")
    return f"""{value} {"/" if end == "low" else "*"} (SELECT i.factor FROM intervals AS i
        WHERE i.sweep_id = a.sweep_id AND i.segment_id = a.segment_id AND i.metric = '{name}'
            AND i.loads = COALESCE(a.loads, 1) AND i.runs IN (0, a.runs))"""


_MADE_LENGTH = "CASE WHEN c.prompt_hash GLOB 'tokens:[0-9]*:*' THEN CAST(substr(c.prompt_hash, 8) AS INTEGER) END"
"""The length that `cell.made_length` reads, for sweeps in which it is no dimension."""


def _json_value(column: str, path: str) -> str:
    """A value of a JSON text; NULL where that is none, for else it would be an error of the whole query."""
    return f"CASE WHEN json_valid({column}) THEN json_extract({column}, {path}) END"
