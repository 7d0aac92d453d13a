"""The files people know from earlier tools, made from the kept answers of a sweep (docs/reports.md has every column).

Pure: `saving` writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ollama_sweep.core import rates
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.core.stats import PERCENTILE_METHOD, known_mean, known_median, spread
from ollama_sweep.core.summary import answered, score_mean, tokens_per_s
from ollama_sweep.core.text import as_json
from ollama_sweep.machine.files import safe_name
from ollama_sweep.results.analysis import Analysis
from ollama_sweep.results.export import csv_text
from ollama_sweep.results.groups import (
    Group,
    categories,
    checks_of,
    is_embedding,
    judgements,
)

LOG_NAME = "benchmark_log.csv"
LOG_COLUMNS = ("timestamp", "model", "avg_tps", "avg_ttft", "avg_decode_tps", "success_rate", "total_items")
LOCAL_COLUMNS = ("model", "prompt_id", "output", "score", "latency_sec", "metadata")
SUMMARY_COLUMNS = (
    "model", "quantization", "parameter_size", "answers", "failed", "mean_score", "mean_latency_sec",
    "median_latency_sec", "mean_total_duration_sec", "mean_prompt_eval_duration_sec", "mean_eval_duration_sec",
    "mean_prompt_tokens", "mean_output_tokens", "total_prompt_tokens", "total_output_tokens",
)  # fmt: skip
MOST_PROMPT_FILES = 1000
"""A task with more answers gets no file for each of them; `run_….json` and `results_local.csv` hold them all."""
_LONGEST_NAME = 48
_MIB, _GIB = 2**20, 2**30


@dataclass(frozen=True)
class Content:
    """A file to write: its folder below the chosen one ("" for none), its name, its text."""

    folder: str
    name: str
    text: str


# -- one answer ------------------------------------------------------------------------------------------------------


def metrics_of(row: AnswerRow, before: AnswerRow | None = None) -> dict[str, object]:
    """The metrics of one item; `before` is the answer before it in the same cell. Unknown is None.

    `decode_tps` is `rates.whole_decode_rate`, as earlier tools have it; everywhere else the first token does not count.
    """
    peak, earlier = row.answer.peak_rss_bytes, before.answer.peak_rss_bytes if before else None
    return {
        "duration": row.latency_s,
        "ttft": row.ttft_s,
        "output_tokens": row.eval_count,
        "output_words": len(row.answer.text.split()),
        "chunk_count": row.answer.chunk_count,
        "tokens_per_second": tokens_per_s(row),
        "decode_tps": whole_decode_rate(row),
        "peak_memory_mb": None if peak is None else peak / _MIB,
        "memory_delta_gb": None if peak is None or earlier is None else (peak - earlier) / _GIB,
        "status": "failed" if row.answer.failure else "success",
        **({"error": row.answer.failure} if row.answer.failure else {}),
        **({"estimated": True} if row.answer.is_estimated else {}),
        **({"scores": scores} if (scores := judgements(row)) else {}),
        **_thinking(row),
    }


def _thinking(row: AnswerRow) -> dict[str, object]:
    """Tokens and seconds of what was thought before the answer; nothing where nothing was."""
    found = {"thinking_tokens": row.thinking_count, "thinking_duration": row.thinking_duration_s}
    return {name: value for name, value in found.items() if value is not None}


def _thoughts(row: AnswerRow) -> dict[str, object]:
    return {"thoughts": row.answer.thoughts} if row.answer.thoughts else {}


def whole_decode_rate(row: AnswerRow) -> float | None:
    """`decode_tps` of these files: output_tokens / (duration - ttft), all tokens over the time after the first one."""
    return rates.whole_decode_rate(row.eval_count, row.latency_s, row.ttft_s)


# -- one model at one task -------------------------------------------------------------------------------------------


def summary_of(group: Group) -> dict[str, object]:
    """The `summary` of a run file. Averages are over the answers; `total_time_spent` counts failed ones, too."""
    good = answered(group.rows)
    return {
        "model": group.model,
        "task": group.task,
        "timestamp": _iso(_moment(group.rows)),
        "config": {
            "max_tokens": _config(group.rows, "num_predict"),
            "temperature": _config(group.rows, "temperature"),
            "max_retries": _config(group.rows, "max_retries"),
        },
        "quantization": group.fact("quantization"),
        "parameter_size": group.fact("parameter_size"),
        "total_items": len(group.rows),
        "successful": len(good),
        "failed": len(group.rows) - len(good),
        "success_rate": group.success_rate,
        "performance": _performance(group),
        "scores": {name: found.mean for name, found in group.spreads.items() if name in _score_names(good)},
        "category_breakdown": {
            name: {
                "count": found["asked"],
                "avg_tps": found["mean_tokens_per_second"],
                "avg_score": found["mean_score"],
            }
            for name, found in categories(group.rows).items()
        },
    }


def _performance(group: Group) -> dict[str, object]:
    good = answered(group.rows)
    rates, ttft = group.spreads.get("tokens_per_second"), group.spreads.get("ttft_s")
    decode = spread(rate for row in good if (rate := whole_decode_rate(row)) is not None)
    duration, tokens = group.spreads.get("latency_s"), group.spreads.get("output_tokens")
    return {
        "avg_tokens_per_second": rates.mean if rates else None,
        "min_tokens_per_second": rates.low if rates else None,
        "max_tokens_per_second": rates.high if rates else None,
        "avg_ttft": ttft.mean if ttft else None,
        "min_ttft": ttft.low if ttft else None,
        "max_ttft": ttft.high if ttft else None,
        "avg_decode_tps": decode.mean if decode else None,
        "avg_duration": duration.mean if duration else None,
        "avg_output_tokens": tokens.mean if tokens else None,
        "total_tokens_generated": sum(row.eval_count or 0 for row in good),
        "total_time_spent": sum(row.latency_s for row in group.rows),
    }


def run_file(group: Group, part: str, folder: str = "") -> Content:
    """`run_<timestamp>_<model>.json`: the summary and every answer. `part` is the model in the name."""
    results, before = [], None
    for row in group.rows:
        before = before if before is not None and before.cell == row.cell else None
        results.append(
            {
                "id": row.answer.item,
                "model": row.model,
                "prompt": row.answer.prompt,
                "output": row.answer.text,
                **_thoughts(row),
                "category": row.answer.category,
                "metrics": metrics_of(row, before),
                "coordinates": dict(row.coordinates),
                "run": row.number,
                "tries": row.answer.tries,
            }
        )
        before = row
    name = f"run_{_stamp(_moment(group.rows))}_{part}.json"
    return Content(folder, name, to_json({"summary": summary_of(group), "results": results}))


def log_row(group: Group) -> list[Scalar]:
    """A line of `benchmark_log.csv`."""
    found = _performance(group)
    speeds = [found[name] for name in ("avg_tokens_per_second", "avg_ttft", "avg_decode_tps")]
    numbers = [value if isinstance(value, int | float) else None for value in speeds]
    return [_iso(_moment(group.rows)), group.model, *numbers, group.success_rate, len(group.rows)]


def prompt_files(group: Group, part: str, folder: str = "") -> list[Content]:
    """`<model>_prompt_<i>.json`, i from 1 in the order of the set; further answers to the same prompt end in `_2` ….

    An empty list for more than `MOST_PROMPT_FILES` answers, and for vectors, which have no text.
    """
    if len(group.rows) > MOST_PROMPT_FILES or any(map(is_embedding, group.rows)):
        return []
    numbers: dict[str, int] = {}
    seen: dict[str, int] = {}
    made = []
    for row in group.rows:
        item = row.answer.item
        numbers.setdefault(item, len(numbers) + 1)
        seen[item] = seen.get(item, 0) + 1
        again = f"_{seen[item]}" if seen[item] > 1 else ""
        content = {
            "model": row.model, "prompt": row.answer.prompt, **_thoughts(row), "response": row.answer.text,
            "latency_s": row.latency_s,
            "id": item, "category": row.answer.category, "task": row.task, "scores": dict(row.scores),
            "error": row.answer.failure or None, "coordinates": dict(row.coordinates), "run": row.number,
        }  # fmt: skip
        made.append(Content(folder, f"{part}_prompt_{numbers[item]:02d}{again}.json", to_json(content)))
    return made


# -- several models --------------------------------------------------------------------------------------------------


def latency_summary(groups: Sequence[Group], folder: str = "") -> Content:
    """`summary.json`: latencies, requests per minute and checks per model."""
    models = {
        group.label: {
            "model": group.model,
            "prompts": len({row.answer.item for row in group.rows}),
            "answers": group.succeeded,
            "failed": group.asked - group.succeeded,
            "latency_s": group.spreads["latency_s"].as_dict() if "latency_s" in group.spreads else None,
            "ttft_s": group.spreads["ttft_s"].as_dict() if "ttft_s" in group.spreads else None,
            "requests_per_min": group.requests_per_min,
            "checks": checks_of(group.rows),
        }
        for group in groups
    }
    return Content(folder, "summary.json", to_json({"percentile_method": PERCENTILE_METHOD, "models": models}))


def local_csv(groups: Sequence[Group], folder: str = "") -> Content:
    """`results_local.csv`: a row for each answer, durations in `metadata` in seconds. A failed one has no latency."""
    rows = [row for group in groups for row in group.rows]
    lines: list[list[Scalar]] = [list(LOCAL_COLUMNS), *(_local_row(row) for row in rows)]
    return Content(folder, "results_local.csv", csv_text(lines))


def _local_row(row: AnswerRow) -> list[Scalar]:
    metadata = {
        "total_duration": row.total_duration_s,
        "load_duration": row.load_duration_s,
        "ttft": row.ttft_s,
        "prompt_eval_count": row.prompt_eval_count,
        "prompt_eval_duration": row.prompt_eval_duration_s,
        "eval_count": row.eval_count,
        "eval_duration": row.eval_duration_s,
        **_thinking(row),
        "task": row.task,
        "category": row.answer.category,
        "run": row.number,
        "coordinates": dict(row.coordinates),
        "failure": row.answer.failure,
    }
    latency = None if row.answer.failure else row.latency_s
    text = as_json(metadata, strict=True)
    return [row.model, row.answer.item, row.answer.text, row.scores.get("score"), latency, text]


def model_csv(groups: Sequence[Group], folder: str = "") -> Content:
    """`model_summary.csv`: a row for each model, over its answers; failed ones are counted and not averaged in."""
    lines: list[list[Scalar]] = [list(SUMMARY_COLUMNS)]
    for group in groups:
        good = answered(group.rows)
        latencies = [row.latency_s for row in good]
        lines.append(
            [
                group.label, group.fact("quantization"), group.fact("parameter_size"), len(good),
                len(group.rows) - len(good), score_mean(good), known_mean(latencies),
                known_median(latencies), known_mean(row.total_duration_s for row in good),
                known_mean(row.prompt_eval_duration_s for row in good), known_mean(row.eval_duration_s for row in good),
                known_mean(row.prompt_eval_count for row in good), known_mean(row.eval_count for row in good),
                sum(row.prompt_eval_count or 0 for row in good), sum(row.eval_count or 0 for row in good),
            ]
        )  # fmt: skip
    return Content(folder, "model_summary.csv", csv_text(lines))


def comparison_file(groups: Sequence[Group], analysis: Analysis) -> Content:
    """`comparison_<timestamp>.json`: the summaries side by side, and what was made of them."""
    moment = _moment([row for group in groups for row in group.rows])
    content = {
        "meta": {
            "timestamp": _iso(moment),
            "models_compared": list(dict.fromkeys(group.label for group in groups)),
            "analysis_model": analysis.model or None,
        },
        "summaries": [summary_of(group) for group in groups],
        "analysis": {"readable": analysis.readable, "structured": analysis.structured, "note": analysis.note or None},
    }
    return Content("", f"comparison_{_stamp(moment)}.json", to_json(content))


# -- all of them -----------------------------------------------------------------------------------------------------


def task_files(groups: Sequence[Group]) -> list[Content]:
    """Everything but the log, the comparison and the hardware report, of the tasks that keep answers.

    Several such tasks have a folder each, so that a file never mixes them.
    """
    made: list[Content] = []
    parts = file_parts(group.label for group in groups)
    for folder, members in by_task(groups).items():
        made += [run_file(group, parts[group.label], folder) for group in members]
        made += [content for group in members for content in prompt_files(group, parts[group.label], folder)]
        made += [latency_summary(members, folder), local_csv(members, folder), model_csv(members, folder)]
    return made


def by_task(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups with answers by their folder: "" where one task has any, else the task's name."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        if group.rows:
            found.setdefault(group.task, []).append(group)
    return {"" if len(found) == 1 else task: members for task, members in found.items()}


def file_parts(labels: Iterable[str]) -> dict[str, str]:
    """Models' names as parts of files' names: `:` and `/` become `-`; where two would be equal, a digest follows."""
    known = list(dict.fromkeys(labels))
    simple = {label: safe_name(label, exact=False) for label in known}
    parts = list(simple.values())
    return {
        label: name if parts.count(name) == 1 and len(name.encode()) <= _LONGEST_NAME else _with_digest(label)
        for label, name in simple.items()
    }


def _with_digest(label: str) -> str:
    digest = hashlib.sha256(label.encode()).hexdigest()[:8]
    return f"{safe_name(label, exact=False)[: _LONGEST_NAME - 9].rstrip('-.')}-{digest}"


def _score_names(rows: Iterable[AnswerRow]) -> set[str]:
    return {name for row in rows for name in judgements(row)}


def _config(rows: Sequence[AnswerRow], name: str) -> object:
    """The one value all answers were asked with; a list where there are several; None where it is not known."""
    values = list(dict.fromkeys(row.config[name] for row in rows if name in row.config))
    return values[0] if len(values) == 1 else values or None


def _moment(rows: Sequence[AnswerRow]) -> datetime:
    """When the last of the answers was there, in UTC; now where no answer says."""
    stamps = [row.finished_at for row in rows if row.finished_at]
    return datetime.fromisoformat(max(stamps)).astimezone(UTC) if stamps else datetime.now(UTC)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%d_%H%M%S")


def to_json(content: Mapping[str, object]) -> str:
    """JSON as all these files have it; raises ValueError for a number that is none."""
    return as_json(content, indent=2, strict=True) + "\n"
