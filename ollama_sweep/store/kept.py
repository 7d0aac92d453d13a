"""The kept answers of a sweep, as they were measured: read for reports, files and pictures."""

# ruff: noqa: S608 - what is put into SQL here are our own names of columns; values are always bound
from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.store import values
from ollama_sweep.store.attempts import ANSWER_COLUMNS, answer_of
from ollama_sweep.store.loads.stored import gives_value_sql, same_choice
from ollama_sweep.store.values import Notes

_ANSWERS = f"""
SELECT {", ".join(ANSWER_COLUMNS)},
    sweeps.name, sweeps.engine, cells.model, cells.task, cells.key, place.coordinates, runs.number,
    runs.client_duration_s, attempts.finished_at, runs.ttft_s,
    attempts.load_duration_s, runs.prompt_eval_count, runs.cached_count, runs.prompt_eval_duration_s, runs.eval_count,
    runs.eval_duration_s, runs.total_duration_s, cells.options, cells.task_options, cells.quantization,
    cells.parameter_size, runs.thinking_count, runs.thinking_duration_s, answers.attempt_id,
    answers.part
FROM (SELECT cell_id, coordinates, min(position) AS position FROM plan WHERE sweep_id = :sweep_id GROUP BY cell_id)
        AS place
    CROSS JOIN sweeps ON sweeps.id = :sweep_id
    CROSS JOIN cells ON cells.id = place.cell_id
    LEFT JOIN attempts AS last ON last.id = cells.attempt_id
    CROSS JOIN attempts ON attempts.cell_id = cells.id AND (attempts.id = cells.attempt_id OR (attempts.status = 'ok'
        AND {gives_value_sql("attempts")} AND {same_choice("attempts", "last")}))
    CROSS JOIN answers ON answers.attempt_id = attempts.id
    CROSS JOIN runs ON runs.attempt_id = answers.attempt_id AND runs.part = answers.part AND runs.warmup = 0
    LEFT JOIN prompts ON prompts.hash = answers.prompt_hash
ORDER BY place.position, attempts.number, runs.number
"""
_SCORES = "SELECT name, value FROM scores WHERE attempt_id = ? AND part = ?"


def answers(connection: sqlite3.Connection, sweep_id: int, notes: Notes) -> Iterator[AnswerRow]:
    """Every measured answer of the attempts that count, failed ones among them, in the order of the plan.

    A cell that stands twice in the plan (a task with a model of its own) is given once.
    """
    for row in values.rows_of(connection, _ANSWERS, {"sweep_id": sweep_id}):
        scores = dict(values.rows_of(connection, _SCORES, row[-2:]))
        found = notes.row(f"an answer of cell {row[len(ANSWER_COLUMNS) + 4]}", _answer_row, row, scores)
        if found is not None:
            yield found


def _answer_row(row: tuple[Any, ...], scores: dict[Any, Any]) -> AnswerRow:
    of_answer, of_run = row[: len(ANSWER_COLUMNS)], row[len(ANSWER_COLUMNS) :]
    (sweep, engine, model, task, cell, coordinates, number, latency_s, finished_at, ttft_s, load_duration_s,
     prompt_eval_count, cached_count, prompt_eval_duration_s, eval_count, eval_duration_s, total_duration_s, options,
     task_options, quantization, parameter_size, thinking_count, thinking_duration_s, _, _) = of_run  # fmt: skip
    answer = answer_of(*of_answer)
    if answer is None:
        raise values.Unreadable("an answer without a question")
    return AnswerRow(
        sweep=values.text(sweep), engine=values.text(engine), model=values.text(model), task=values.text(task),
        cell=values.text(cell), coordinates=values.scalars(coordinates), number=values.whole(number), answer=answer,
        latency_s=values.number(latency_s), finished_at=values.moment(finished_at).isoformat() if finished_at else "",
        scores={values.text(name): values.number(value) for name, value in scores.items()},
        config={**values.json_object(options), **values.json_object(task_options)},
        ttft_s=values.optional_number(ttft_s), load_duration_s=values.optional_number(load_duration_s),
        prompt_eval_count=values.optional_whole(prompt_eval_count), cached_count=values.optional_whole(cached_count),
        prompt_eval_duration_s=values.optional_number(prompt_eval_duration_s),
        eval_count=values.optional_whole(eval_count), eval_duration_s=values.optional_number(eval_duration_s),
        total_duration_s=values.optional_number(total_duration_s), quantization=values.optional_text(quantization),
        parameter_size=values.optional_text(parameter_size), thinking_count=values.optional_whole(thinking_count),
        thinking_duration_s=values.optional_number(thinking_duration_s),
    )  # fmt: skip
