"""Begin and finish an attempt: what is stored of it, and what it makes of its cell."""

# ruff: noqa: S608 - what is put into SQL here are our own names of tables and columns; values are always bound
from __future__ import annotations

import math
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ollama_sweep.core.cell import content_hash
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.outcome import Answer, Outcome, Purpose, Run, Status
from ollama_sweep.core.summary import PROMPT_RATE, own_load
from ollama_sweep.machine import secrets
from ollama_sweep.machine.sensing import series
from ollama_sweep.store import checksum, values
from ollama_sweep.store.again import ROUNDS
from ollama_sweep.store.loads import spreads, stored
from ollama_sweep.store.plans import canonical_json, note_own
from ollama_sweep.store.schema import add_view_columns
from ollama_sweep.store.values import Notes

WHOLE = "attempt"
"""The `part` of scores and raw output that belongs to the attempt, beside `run 1`, `warmup 1`, …"""
RUN_COLUMNS = (
    "number", "warmup", "nonce", "prompt_eval_count", "cached_count", "prompt_eval_duration_s", "prompt_eval_rate",
    "eval_count", "eval_duration_s", "eval_rate", "total_duration_s", "load_duration_s", "printed_rate",
    "client_duration_s", "believed", "doubt", "ttft_s",
    "thinking_count", "thinking_duration_s", "started_s",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "runs", "loads", "prompt_eval_count", "prompt_eval_rate", "prompt_eval_rate_min", "prompt_eval_rate_max",
    "prompt_eval_duration_s", "eval_count", "eval_rate", "total_duration_s",
)  # fmt: skip


def begin(
    connection: sqlite3.Connection,
    sweep_id: int,
    cell_id: int,
    timeout_s: float,
    now: str,
    boot_id: str | None,
    purpose: Purpose | None = None,
) -> int:
    """A new attempt; the one this process has open for the cell already, where there is one.

    One with a purpose leaves its cell as it is.
    """
    open_one = connection.execute(
        "SELECT id FROM attempts WHERE cell_id = ? AND sweep_id = ? AND finished_at IS NULL AND pid = ?",
        (cell_id, sweep_id, os.getpid()),
    ).fetchone()
    if open_one:
        return int(open_one[0])
    require_finite("timeout_s", timeout_s)
    row = connection.execute(
        """INSERT INTO attempts (cell_id, sweep_id, segment_id, repeats, number, status, timeout_s, started_at, pid,
                boot_id, purpose)
            SELECT ?, id, segment_id, repeats, (SELECT COALESCE(max(number), 0) + 1 FROM attempts WHERE cell_id = ?),
                'started', ?, ?, ?, ?, ? FROM sweeps WHERE id = ? RETURNING id""",
        (cell_id, cell_id, timeout_s, now, os.getpid(), boot_id, purpose and purpose.value, sweep_id),
    ).fetchone()
    if purpose is None:
        connection.execute("UPDATE cells SET status = 'started', reason = '' WHERE id = ?", (cell_id,))
    return int(row[0])


def finish(connection: sqlite3.Connection, attempt_id: int, outcome: Outcome, cell_status: Status, now: str) -> None:
    """Store an outcome once, and what it makes of its cell: one that has ended so already is left as it is."""
    cell_id = end(connection, attempt_id, outcome, now)
    if cell_id is None:
        return
    update_cell(connection, cell_id, attempt_id, outcome, cell_status)
    if cell_status.is_final:
        connection.execute("UPDATE origin SET called_done = called_done + 1")


def end(connection: sqlite3.Connection, attempt_id: int, outcome: Outcome, now: str) -> int | None:
    """Store how an attempt ended, with all that came of it; its cell, None where it had ended the same way already."""
    row = connection.execute("SELECT status, cell_id FROM attempts WHERE id = ?", (attempt_id,)).fetchone()
    if row is None:
        raise ValueError(f"no attempt {attempt_id}")
    stored, cell_id = row
    if stored != Status.STARTED:
        if stored != outcome.status:
            raise ValueError(f"attempt {attempt_id} has ended as {stored}, not as {outcome.status}")
        return None
    _store_attempt(connection, attempt_id, outcome, now)
    _store_parts(connection, attempt_id, outcome)
    reached("in_finish")
    _store_load(connection, attempt_id, outcome)
    checksum.seal(connection, attempt_id)
    return int(cell_id)


def _store_load(connection: sqlite3.Connection, attempt_id: int, outcome: Outcome) -> None:
    """What this load said by itself, and the columns of all that its attempt says."""
    said = own_load(outcome.runs) if outcome.status is Status.OK else {}
    spreads.add(connection, attempt_id, said)
    is_prompt = PROMPT_RATE in said
    runs = outcome.summary.runs if is_prompt else 0
    spreads.shape(connection, attempt_id, said, loads=outcome.summary.loads, runs=runs)
    ends = [] if is_prompt else [f"{name}_{end}" for name in said for end in ("low", "high")]
    add_view_columns(connection, [*outcome.summary.scores, *ends], "score")


def save_control(connection: sqlite3.Connection, attempt_id: int, outcome: Outcome, drift: float, now: str) -> None:
    """What a control measurement said; the cell's own result stays what it was."""
    connection.execute(
        """INSERT INTO controls (sweep_id, cell_id, segment_id, prompt_eval_rate, drift, measured_at, attempt_id)
            SELECT sweep_id, cell_id, segment_id, ?, ?, ?, id FROM attempts WHERE id = ?""",
        (outcome.summary.prompt_eval_rate, drift, now, attempt_id),
    )
    checksum.seal_rows(connection, "controls", "id = last_insert_rowid()")


def _store_attempt(connection: sqlite3.Connection, attempt_id: int, outcome: Outcome, now: str) -> None:
    effective = outcome.effective
    values: dict[str, object] = {
        "status": outcome.status.value, "reason": outcome.reason, "error": _clean(secrets.masked(outcome.error)),
        "flags": ",".join(sorted(outcome.flags)), "finished_at": now,
        **{name: getattr(outcome.summary, name) for name in SUMMARY_COLUMNS},
        "scores": canonical_json(dict(outcome.summary.scores)),
        "effective_num_ctx": effective.num_ctx, "effective_num_batch": effective.num_batch,
        "size_bytes": effective.size_bytes, "size_vram_bytes": effective.size_vram_bytes,
        "load_duration_s": effective.load_duration_s, "others_loaded": ",".join(effective.others_loaded),
    }  # fmt: skip
    changes = ", ".join(f"{name} = :{name}" for name in values)
    connection.execute(f"UPDATE attempts SET {changes} WHERE id = :id", {**values, "id": attempt_id})


def _store_parts(connection: sqlite3.Connection, attempt_id: int, outcome: Outcome) -> None:
    names = ", ".join(RUN_COLUMNS)
    marks = ", ".join("?" for _ in RUN_COLUMNS)
    connection.executemany(
        f"INSERT INTO runs (attempt_id, part, {names}) VALUES (?, ?, {marks})",
        [(attempt_id, run.part, *(getattr(run, name) for name in RUN_COLUMNS)) for run in outcome.runs],
    )
    connection.executemany(
        "INSERT INTO scores (attempt_id, part, name, value) VALUES (?, ?, ?, ?)", list(_scores(attempt_id, outcome))
    )
    raw, mask = [(WHOLE, outcome.raw), *((run.part, run.raw) for run in outcome.runs)], secrets.masker()
    connection.executemany(
        "INSERT INTO raw_outputs (attempt_id, part, content) VALUES (?, ?, ?)",
        [(attempt_id, part, compress(mask(text))) for part, text in raw if text],
    )
    if outcome.series.lines:
        row = (attempt_id, series.packed(outcome.series))
        connection.execute("INSERT INTO telemetry (attempt_id, series) VALUES (?, ?)", row)
    _store_answers(connection, attempt_id, outcome)


def _store_answers(connection: sqlite3.Connection, attempt_id: int, outcome: Outcome) -> None:
    found = [(run.part, run.answer) for run in outcome.runs if run.answer is not None]
    connection.executemany(
        "INSERT INTO prompts (hash, text) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(content_hash(answer.prompt), _clean(answer.prompt)) for _, answer in found],
    )
    connection.executemany(
        """INSERT INTO answers (attempt_id, part, item, category, prompt_hash, output, failure, tries, chunk_count,
                is_estimated, peak_rss_bytes, thoughts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        [
            (attempt_id, part, _clean(answer.item), _clean(answer.category), content_hash(answer.prompt),
             compress(answer.text), _clean(secrets.masked(answer.failure)), answer.tries, answer.chunk_count,
             answer.is_estimated, answer.peak_rss_bytes, compress(answer.thoughts) if answer.thoughts else None)
            for part, answer in found
        ],
    )  # fmt: skip


def _scores(attempt_id: int, outcome: Outcome) -> Iterator[tuple[int, str, str, float]]:
    for run in outcome.runs:
        for name, value in run.scores.items():
            yield attempt_id, run.part, name, value
    for name, value in outcome.summary.scores.items():
        yield attempt_id, WHOLE, name, value


def update_cell(
    connection: sqlite3.Connection, cell_id: int, attempt_id: int, outcome: Outcome, cell_status: Status
) -> None:
    """The cell points at this attempt only where it is the last word; else it is pending and shows what it had.

    Of a task with questions `runs` and `repeats` are both the rounds in which they were asked.
    """
    if outcome.status.counts:
        connection.execute("UPDATE cells SET attempts = attempts + 1, deaths = 0 WHERE id = ?", (cell_id,))
    if not cell_status.is_final:
        connection.execute("UPDATE cells SET status = 'pending', reason = '' WHERE id = ?", (cell_id,))
        return
    note_own(connection, cell_id)
    connection.execute(
        f"""UPDATE cells SET status = ?, reason = ?, runs = COALESCE({ROUNDS}, ?), attempt_id = attempts.id,
                timeout_s = attempts.timeout_s, repeats = COALESCE({ROUNDS}, attempts.repeats)
            FROM attempts WHERE attempts.id = ? AND cells.id = ?""",
        (cell_status.value, outcome.reason, outcome.summary.runs, attempt_id, cell_id),
    )


def believed_runs(
    connection: sqlite3.Connection, cell_id: int, choice: int, sweep_id: int | None, notes: Notes
) -> tuple[tuple[Run, ...], ...]:
    """The runs of a cell's earlier loads that a further one stands beside, the oldest load first; with a sweep those of
    the surroundings in which it is measured now. `choice`: how often the cell had been chosen for its value by then.
    """
    now = None if sweep_id is None else _surroundings_now(connection, sweep_id)
    found = (
        speaking_runs(connection, notes, load.attempt_id)
        for load in stored.earlier(connection, cell_id, choice)
        if now is None or load.segment_id in now
    )
    return tuple(runs for runs in found if runs)


def _surroundings_now(connection: sqlite3.Connection, sweep_id: int) -> frozenset[int]:
    """Every segment with the fingerprint of the one the sweep is measured in now."""
    sql = """SELECT other.id FROM sweeps JOIN segments AS its ON its.id = sweeps.segment_id
        JOIN segments AS other ON other.fingerprint = its.fingerprint WHERE sweeps.id = ?"""
    return frozenset(number for (number,) in connection.execute(sql, (sweep_id,)))


def speaking_runs(connection: sqlite3.Connection, notes: Notes, attempt_id: int) -> tuple[Run, ...]:
    """Those of a load that count: the believed ones, and every question that was asked and not answered."""
    runs = runs_with_answers(connection, notes, attempt_id, scores_by_part(connection, notes, attempt_id))
    return tuple(run for run in runs if not run.warmup and (run.believed or run.answer is not None))


ANSWER_COLUMNS = (
    "answers.item", "answers.category", "COALESCE(prompts.text, '')", "answers.output", "answers.failure",
    "answers.tries", "answers.chunk_count", "answers.is_estimated", "answers.peak_rss_bytes", "answers.thoughts",
)  # fmt: skip


_RUNS = f"""SELECT runs.part, {", ".join(f"runs.{name}" for name in RUN_COLUMNS)}, {", ".join(ANSWER_COLUMNS)}
    FROM runs LEFT JOIN answers ON answers.attempt_id = runs.attempt_id AND answers.part = runs.part
        LEFT JOIN prompts ON prompts.hash = answers.prompt_hash
    WHERE runs.attempt_id = ? ORDER BY runs.warmup DESC, runs.number, runs.part"""


def runs_with_answers(
    connection: sqlite3.Connection, notes: Notes, attempt_id: int, scores: Mapping[str, Mapping[str, float]]
) -> Iterator[Run]:
    """The runs of an attempt with answers and scores, warm-ups first; without what the engine printed."""

    def made(part: object, *row: object) -> Run:
        run, answer = run_of(*row[: len(RUN_COLUMNS)]), answer_of(*row[len(RUN_COLUMNS) :])
        return replace(run, answer=answer, scores=scores.get(values.text(part), {}))

    return notes.rows(f"a run of attempt {attempt_id}", made, values.rows_of(connection, _RUNS, (attempt_id,)))


def scores_by_part(connection: sqlite3.Connection, notes: Notes, attempt_id: int) -> dict[str, dict[str, float]]:
    """The scores of an attempt and its runs, by part and name."""
    found: dict[str, dict[str, float]] = {}
    rows = values.rows_of(connection, "SELECT part, name, value FROM scores WHERE attempt_id = ?", (attempt_id,))
    for part, name, value in notes.rows(
        "a score", lambda *row: (*map(values.text, row[:2]), values.number(row[2])), rows
    ):
        found.setdefault(part, {})[name] = value
    return found


def run_of(*row: object) -> Run:
    """The run whose RUN_COLUMNS these are; without answer, scores and raw output. Raises Unreadable."""
    found = dict(zip(RUN_COLUMNS, row, strict=True))
    texts = {name: values.text(found.pop(name)) for name in ("nonce", "doubt")}
    numbers = {name: values.optional_number(value) for name, value in found.items()}
    values.number(numbers["client_duration_s"])
    numbers.update(warmup=bool(numbers["warmup"]), believed=bool(numbers["believed"]))
    return Run(**texts, **numbers)  # type: ignore[arg-type]  # the columns are fields of it


def answer_of(
    item: object, category: object, prompt: object, output: object, failure: object, *rest: object
) -> Answer | None:
    """The answer of a run as it was; None where its task has no questions."""
    if item is None:
        return None
    tries, chunk_count, is_estimated, peak_rss_bytes, thoughts = rest
    return Answer(
        values.text(item), values.text(category), values.text(prompt), values.unpacked(output), values.text(failure),
        values.whole(tries), values.optional_whole(chunk_count), bool(values.whole(is_estimated)),
        values.optional_whole(peak_rss_bytes), values.unpacked(thoughts) if thoughts else "",
    )  # fmt: skip


def compress(text: str) -> bytes:
    return zlib.compress(text.encode("utf-8", "surrogatepass"), 6)


def _clean(text: str) -> str:
    """Text as every SQLite shell shows it: no NUL, no half characters."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def check_finite(outcome: Outcome) -> None:
    """Refuse NaN and infinity, which SQLite would turn into NULL without a word."""
    _check_fields("summary", vars(outcome.summary))
    _check_fields("effective", vars(outcome.effective))
    for run in outcome.runs:
        _check_fields(run.part, vars(run))
    for name, line in outcome.series.lines.items():
        for value in (line.low, line.high, *line.points):
            require_finite(f"series.{name}", value)


def _check_fields(where: str, fields: Mapping[str, object]) -> None:
    for name, value in _flat(fields.items()):
        require_finite(f"{where}.{name}", value)


def _flat(items: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    for name, value in items:
        if isinstance(value, Mapping):
            yield from _flat(value.items())
        else:
            yield name, value


def require_finite(name: str, value: object) -> None:
    """Raise ValueError for NaN and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; only finite numbers are stored")
