"""The kept answers of a sweep, as they were measured: read for reports, files and pictures."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from ollama_sweep.core.outcome import Answer, AnswerRow
from ollama_sweep.store import attempts

_ANSWERS = """
SELECT sweeps.name, sweeps.engine, cells.model, cells.task, cells.key, place.coordinates, runs.number, answers.item,
    answers.category, COALESCE(prompts.text, ''), answers.output, answers.failure, answers.tries, answers.chunk_count,
    answers.is_estimated, answers.peak_rss_bytes, runs.client_duration_s, attempts.finished_at, runs.ttft_s,
    attempts.load_duration_s, runs.prompt_eval_count, runs.cached_count, runs.prompt_eval_duration_s, runs.eval_count,
    runs.eval_duration_s, runs.total_duration_s, cells.options, cells.task_options, cells.quantization,
    cells.parameter_size, answers.attempt_id, answers.part
FROM (SELECT cell_id, coordinates, min(position) AS position FROM plan WHERE sweep_id = :sweep_id GROUP BY cell_id)
        AS place
    CROSS JOIN sweeps ON sweeps.id = :sweep_id
    CROSS JOIN cells ON cells.id = place.cell_id
    CROSS JOIN attempts ON attempts.cell_id = cells.id AND (attempts.status = 'ok' OR attempts.id = cells.attempt_id)
    CROSS JOIN answers ON answers.attempt_id = attempts.id
    CROSS JOIN runs ON runs.attempt_id = answers.attempt_id AND runs.part = answers.part AND runs.warmup = 0
    LEFT JOIN prompts ON prompts.hash = answers.prompt_hash
ORDER BY place.position, attempts.number, runs.number
"""
_SCORES = "SELECT name, value FROM scores WHERE attempt_id = ? AND part = ?"


def answers(connection: sqlite3.Connection, sweep_id: int) -> Iterator[AnswerRow]:
    """Every measured answer of the attempts that count, failed ones among them, in the order of the plan.

    A cell that stands twice in the plan (a task with a model of its own) is given once.
    """
    for row in connection.execute(_ANSWERS, {"sweep_id": sweep_id}):
        scores = connection.execute(_SCORES, row[-2:]).fetchall()
        yield _answer_row(row, dict(scores))


def _answer_row(row: tuple[object, ...], scores: dict[str, float]) -> AnswerRow:
    (sweep, engine, model, task, cell, coordinates, number, item, category, prompt, output, failure, tries, chunk_count,
     is_estimated, peak_rss_bytes, latency_s, finished_at, ttft_s, load_duration_s, prompt_eval_count, cached_count,
     prompt_eval_duration_s, eval_count, eval_duration_s, total_duration_s, options, task_options, quantization,
     parameter_size, _, _) = row  # fmt: skip
    answer = Answer(
        str(item), str(category), str(prompt), attempts.decompress(output), str(failure), tries, chunk_count,  # type: ignore[arg-type]
        bool(is_estimated), peak_rss_bytes,  # type: ignore[arg-type]
    )  # fmt: skip
    values = {
        "ttft_s": ttft_s, "load_duration_s": load_duration_s, "prompt_eval_count": prompt_eval_count,
        "cached_count": cached_count, "prompt_eval_duration_s": prompt_eval_duration_s, "eval_count": eval_count,
        "eval_duration_s": eval_duration_s, "total_duration_s": total_duration_s, "quantization": quantization,
        "parameter_size": parameter_size,
    }  # fmt: skip
    return AnswerRow(
        sweep=str(sweep), engine=str(engine), model=str(model), task=str(task), cell=str(cell),
        coordinates=json.loads(str(coordinates)), number=number, answer=answer, latency_s=latency_s,  # type: ignore[arg-type]
        finished_at=str(finished_at or ""), scores=scores,
        config={**json.loads(str(options)), **json.loads(str(task_options))},
        **values,  # type: ignore[arg-type]
    )  # fmt: skip
