"""The tables in words, and the questions that people ask of the view `results`, as SQL: for programs that show both.

The queries name no column that a database adds to the view, so they run on every one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """A question with its answer in SQL; `:sweep` and the like are asked for, and an empty one stands for all."""

    name: str
    title: str
    description: str
    sql: str


TABLES: Mapping[str, str] = {
    "results": "One row for each cell of each sweep: what was asked for, how it ended, and the medians of its believed "
    "runs. Numbers are exact; null is unknown or not measured, never zero.",
    "sweeps": "A sweep: its name, its settings as JSON, the machine, when it ran.",
    "cells": "A cell by its key, with its status; attempt_id is the attempt that counts.",
    "plan": "A place in the order of a sweep: which cell, which coordinates.",
    "attempts": "One try at a cell, which is one load: status, error, medians, effective values. None is ever deleted.",
    "runs": "One generation: counts and durations as the engine gave them, and whether it is believed.",
    "scores": "A score of a run or of an attempt.",
    "answers": "What was answered to a task's question, compressed with zlib; the question is in prompts.",
    "raw_outputs": "Everything the engine printed, compressed with zlib, by part.",
    "segments": "Surroundings: versions, processor, GPUs with driver, kernel, settings of the environment.",
    "prompts": "A prompt's text by its hash.",
    "controls": "A control measurement: the rate, and the drift against the first one.",
    "scans": "A load without a prompt that run --scan made.",
    "load_values": "What each load said by itself.",
    "spreads": "How far runs of a load and loads differ, by sweep, segment and number.",
    "intervals": "What a value is divided and multiplied by for its interval.",
    "corrections": "By what share an attempt was faster (+) or slower (-) for the time it was made at.",
    "further_loads": "Which cells with a value want or had a further load, and why.",
    "second_looks": "When a sweep's second look began and ended.",
    "goals": "What a sweep is for, and whether that is reached.",
    "choices": "Of an attempt that a planner chose: for which goal, and why.",
    "out_of_memory": "An attempt that ran out of memory, and in which surroundings.",
    "telemetry": "What sensors said while an attempt lasted, packed.",
}
INNER = ("checksums", "ledger", "made_prompts", "origin", "prompt_tokens", "reused", "status_counts", "view_columns")
"""Tables that say nothing to a person."""

QUERIES = (
    Query(
        "best_cells",
        "The fastest cells",
        "By the speed of reading the prompt, with the interval in which the true rate lies with 95 %.",
        """select sweep, model, num_ctx, num_batch, task, round(prompt_eval_rate, 1) as prompt_eval_rate,
    round(prompt_eval_rate_low, 1) as prompt_eval_rate_low, round(prompt_eval_rate_high, 1) as prompt_eval_rate_high,
    runs, loads, flags
from results
where (:sweep = '' or sweep = :sweep) and status = 'ok' and prompt_eval_rate is not null
order by prompt_eval_rate desc
limit 50""",
    ),
    Query(
        "best_batch",
        "The fastest num_batch of each num_ctx",
        "Cells that spilled to the CPU are left out.",
        """select sweep, model, num_ctx, num_batch, task, round(max(prompt_eval_rate), 1) as prompt_eval_rate,
    loads, flags
from results
where (:sweep = '' or sweep = :sweep) and status = 'ok' and flags not like '%spilled%' and prompt_eval_rate is not null
group by sweep, model, task, num_ctx
order by sweep, model, task, num_ctx""",
    ),
    Query(
        "failures",
        "What failed, by kind",
        "How many cells ended so, from which num_ctx on, and what was said of one of them.",
        """select sweep, status, reason, count(*) as cells, min(num_ctx) as from_num_ctx, max(num_ctx) as to_num_ctx,
    min(num_batch) as from_num_batch, max(num_batch) as to_num_batch, max(error) as error
from results
where (:sweep = '' or sweep = :sweep) and status not in ('ok', 'pending', 'started', 'skipped')
group by sweep, status, reason
order by cells desc""",
    ),
    Query(
        "flagged",
        "Numbers to be careful with",
        "Measured cells that carry a flag.",
        """select sweep, model, num_ctx, num_batch, task, flags, round(prompt_eval_rate, 1) as prompt_eval_rate,
    runs, loads
from results
where (:sweep = '' or sweep = :sweep) and status = 'ok' and flags <> ''
order by sweep, position""",
    ),
    Query(
        "memory",
        "Memory against speed",
        "The loaded model with its cache and buffers, in MiB, and the part of it on the GPU.",
        """select sweep, model, num_ctx, num_batch, size_bytes / 1048576 as size_mib,
    size_vram_bytes / 1048576 as vram_mib, round(prompt_eval_rate, 1) as prompt_eval_rate,
    round(load_duration_s, 2) as load_duration_s
from results
where (:sweep = '' or sweep = :sweep) and status = 'ok' and size_bytes is not null
order by size_bytes""",
    ),
    Query(
        "progress",
        "How far each sweep is",
        "Its cells by status.",
        """select sweep, count(*) as cells, sum(status = 'ok') as ok, sum(status in ('pending', 'started')) as waiting,
    sum(status = 'skipped') as skipped, sum(status not in ('ok', 'pending', 'started', 'skipped')) as failed,
    max(finished_at) as last_finished_at
from results
where (:sweep = '' or sweep = :sweep)
group by sweep
order by last_finished_at desc""",
    ),
    Query(
        "runs_of_a_cell",
        "Every run of a cell",
        "Warm-ups and doubted runs included.",
        """select attempts.number as attempt, part, runs.prompt_eval_count, cached_count,
    round(runs.prompt_eval_rate, 1) as prompt_eval_rate, round(runs.eval_rate, 1) as eval_rate, believed, doubt
from cells
join attempts on attempts.cell_id = cells.id
join runs on runs.attempt_id = attempts.id
where cells.num_ctx = :num_ctx and cells.num_batch = :num_batch
order by cells.id, attempts.number, warmup desc, runs.number""",
    ),
    Query(
        "surroundings",
        "What was measured where",
        "Versions, processor and GPUs, with how many attempts each has.",
        """select segments.id as segment, segments.started_at, json_extract(fingerprint, '$.engine') as engine,
    json_extract(fingerprint, '$.engine_version') as engine_version,
    json_extract(fingerprint, '$.processor') as processor,
    json_extract(fingerprint, '$.gpus') as gpus, count(attempts.id) as attempts
from segments
left join attempts on attempts.segment_id = segments.id
group by segments.id
order by segments.id""",
    ),
)
