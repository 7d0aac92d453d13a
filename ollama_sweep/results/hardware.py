"""`report_<host>.json`: this computer, and what each model did in each task on it. Pure.

The score of a task is n · 3600 / seconds, with n beside it as `num_tasks`: of embeddings n is the number of models,
over the sum of their median times; of everything else n is the number of prompts, for each model over its median
latency, and for the task (n times the models) over the sum of the median latencies.

`device_info` is the computer that makes the report. The `device` of a model is what it was measured on, which may be
another one, and null where nobody knows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.core.rates import generation_time, per_second, task_score
from ollama_sweep.core.stats import known_median, median
from ollama_sweep.core.summary import answered, tokens_per_s
from ollama_sweep.machine.device_report import DeviceInfo
from ollama_sweep.machine.files import safe_name
from ollama_sweep.results.groups import Group, is_embedding
from ollama_sweep.results.task_files import Content, to_json

_DTYPE = re.compile(r"\b(?:bfloat|float|uint|int)\d+\b|\bu?binary\b")
_DEVICE = re.compile(r"\bon (cuda|rocm|mps|cpu)$")
_ROWS_PER_S, _TIME, _DIMENSION = "rows_per_s", "encoding_time_s", "embedding_dimension"


@dataclass(frozen=True)
class Used:
    """What is known of where answers were made: `vram_bytes` by cell, and this computer, if the sweep ran on it."""

    vram_bytes: Mapping[str, float]
    here: DeviceInfo | None

    def device(self, row: AnswerRow) -> str | None:
        """cuda, rocm, mps or cpu; None where it is not known.

        The memory of an engine's processes is known exactly where they run on the computer of the sweep.
        """
        said, vram = _DEVICE.search(row.answer.text) if is_embedding(row) else None, self.vram_bytes.get(row.cell)
        if said or vram == 0:
            return said[1] if said else "cpu"
        if self.here is None or row.answer.peak_rss_bytes is None:
            return None
        if vram is None:
            return None if self.here.gpu_name else "cpu"
        return self.here.device if self.here.device != "cpu" else None

    def of_all(self, rows: Iterable[AnswerRow]) -> str | None:
        """The device of all of these; several are named one after the other."""
        known = [device for row in rows if (device := self.device(row))]
        return ", ".join(dict.fromkeys(known)) or None


def _used(groups: Sequence[Group], here: DeviceInfo, measured_on: str) -> Used:
    cells = [cell for group in groups for cell in group.cells]
    vram = {cell.key: found for cell in cells if (found := cell.metrics.get("size_vram_bytes")) is not None}
    return Used(vram, here if here.machine and here.machine == measured_on else None)


def hardware_file(groups: Sequence[Group], device: DeviceInfo, timestamp: str, measured_on: str) -> Content:
    """The file. `timestamp` is ISO 8601; `measured_on` says in one line on what machine the sweep ran."""
    by_task: dict[str, list[Group]] = {}
    for group in groups:
        if answered(group.rows):
            by_task.setdefault(group.task, []).append(group)
    used = _used(groups, device, measured_on)
    content = {
        "timestamp": timestamp,
        "device_info": device.as_dict(),
        "measured_on": measured_on,
        "tasks": [task_entry(task, members, used) for task, members in by_task.items()],
    }
    return Content("", f"report_{safe_name(device.host, exact=False)}.json", to_json(content))


def task_entry(task: str, groups: Sequence[Group], used: Used) -> dict[str, object]:
    """One task: its models with their medians and all runs, and its score with the n it was made with."""
    if all(is_embedding(row) for group in groups for row in answered(group.rows)):
        return _embeddings(task, groups, used)
    size = max(len({row.answer.item for row in group.rows}) for group in groups)
    seconds = [median([row.latency_s for row in answered(group.rows)]) for group in groups]
    models = {group.label: _chat_model(group, used, size, found) for group, found in zip(groups, seconds, strict=True)}
    return {
        "task": task,
        "dataset_size": size,
        "models": models,
        "num_tasks": size,
        "task_score": task_score(size * len(groups), sum(seconds)),
    }


def _chat_model(group: Group, used: Used, size: int, seconds: float) -> dict[str, object]:
    runs = [_chat_run(row) for row in answered(group.rows)]
    names = ("total_latency_s", "ttft_s", "generation_time_s", "input_tokens", "output_tokens", "chars_per_sec",
             "tokens_per_sec")  # fmt: skip
    return {
        "model_name": group.model,
        "device": used.of_all(answered(group.rows)),
        **{f"final_median_{name}": known_median(run[name] for run in runs) for name in names},
        "failed": group.asked - group.succeeded,
        "task_score": task_score(size, seconds),
        "all_runs": [
            {"id": row.answer.item, "run": row.number, "coordinates": dict(row.coordinates), **run}
            for row, run in zip(answered(group.rows), runs, strict=True)
        ],
    }


def _chat_run(row: AnswerRow) -> dict[str, float | None]:
    return {
        "total_latency_s": row.latency_s,
        "ttft_s": row.ttft_s,
        "generation_time_s": generation_time(row.latency_s, row.ttft_s),
        "input_tokens": row.prompt_eval_count,
        "output_tokens": row.eval_count,
        "chars_per_sec": per_second(len(row.answer.text), row.latency_s),
        "tokens_per_sec": tokens_per_s(row),
    }


def _embeddings(task: str, groups: Sequence[Group], used: Used) -> dict[str, object]:
    seconds = [median([_encoding_s(row) for row in answered(group.rows)]) for group in groups]
    sizes = [size for group in groups for row in group.rows if isinstance(size := row.config.get("rows"), int)]
    return {
        "task": task,
        "dataset_size": max(sizes, default=None),
        "models": {
            group.label: _embedding_model(group, used, found) for group, found in zip(groups, seconds, strict=True)
        },
        "num_tasks": len(groups),
        "task_score": task_score(len(groups), sum(seconds)),
    }


def _embedding_model(group: Group, used: Used, seconds: float) -> dict[str, object]:
    runs = [_embedding_run(row, used.device(row)) for row in answered(group.rows)]
    return {
        "model_name": group.model,
        "device": used.of_all(answered(group.rows)),
        "final_median_encoding_time_seconds": seconds,
        "final_median_rows_per_second": median([row.scores[_ROWS_PER_S] for row in answered(group.rows)]),
        "embedding_dimension": runs[0]["embedding_dimension"],
        "dtype": runs[0]["dtype"],
        "failed": group.asked - group.succeeded,
        "task_score": task_score(1, seconds),
        "all_runs": runs,
    }


def _embedding_run(row: AnswerRow, device: str | None) -> dict[str, object]:
    dimension, dtype = row.scores.get(_DIMENSION), _DTYPE.search(row.answer.text)
    return {
        "encoding_time_seconds": _encoding_s(row),
        "rows_per_second": row.scores[_ROWS_PER_S],
        "embedding_dimension": None if dimension is None else round(dimension),
        "dtype": dtype[0] if dtype else None,
        "device": device,
        "run": row.number,
        "coordinates": dict(row.coordinates),
    }


def _encoding_s(row: AnswerRow) -> float:
    return row.scores.get(_TIME, row.latency_s)
