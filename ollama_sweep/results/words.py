"""What answers and cells say per model and task, in words and tables. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ollama_sweep.core.metrics import metric
from ollama_sweep.core.outcome import AnswerRow, CellResult
from ollama_sweep.core.stats import Spread
from ollama_sweep.core.summary import score_interval
from ollama_sweep.core.units import format_bytes, format_rate
from ollama_sweep.results.answers import pooled_words
from ollama_sweep.results.groups import Group, checks_of, make_groups

HEAD = ("model", "number", "n", "mean", "median", "P95", "P99", "max", "min–max")
SHOWN = (
    "latency_s", "ttft_s", "tokens_per_second", "decode_tps", "prompt_eval_rate", "eval_rate", "rows_per_s", "score",
    "prompt_tokens", "output_tokens", "total_duration_s", "load_duration_s", "peak_rss_bytes", "peak_vram_bytes",
    "energy_j",
)  # fmt: skip
"""The numbers of the table; `--json` has all of them."""


AT_ONCE = ("requests_per_s", "tokens_per_s_total", "ttft_s_p50", "ttft_s_p95", "served_parallel")
"""The same of a task whose questions were in flight at once."""


def summary_lines(rows: Sequence[AnswerRow], results: Sequence[CellResult]) -> list[str]:
    """A summary per model for the end of a run: under each model's name a line for each of its tasks."""
    groups = make_groups(rows, results)
    lines = []
    for label in sorted({group.label for group in groups}):
        own = [group for group in groups if group.label == label]
        facts = [fact for name in ("parameter_size", "quantization") if (fact := own[0].fact(name))]
        lines.append(f"{label} ({', '.join(facts)}):" if facts else f"{label}:")
        for group in own:
            lines += [f"  {group.task}: {_facts(group)}", *(f"    {line}" for line in at_once_lines(group.cells))]
    return lines


def group_line(group: Group) -> str:
    """`llama3:8b, items: 19 of 20 answered (95 %), latency 1.20 s …`: one model at one task in one line."""
    return f"{group.label}, {group.task}: {_facts(group)}"


def _facts(group: Group) -> str:
    done = "answered" if group.rows else "cells measured"
    share = f" ({100 * group.success_rate:.0f} %)" if group.success_rate is not None else ""
    facts = [f"{group.succeeded} of {group.asked} {done}{share}"]
    latency, ttft, rate = (group.spreads.get(name) for name in ("latency_s", "ttft_s", "tokens_per_second"))
    if latency:
        facts.append(
            f"latency {value_text('latency_s', latency.median)} s (P95 {value_text('latency_s', latency.p95)})"
        )
    if ttft:
        facts.append(f"ttft {value_text('ttft_s', ttft.median)} s")
    if rate:
        facts.append(f"{format_rate(rate.mean)} tokens/s ({format_rate(rate.low)}–{format_rate(rate.high)})")
    for name, words in (("decode_tps", "decode"), ("prompt_eval_rate", "prompt"), ("rows_per_s", "")):
        found = group.spreads.get(name)
        if found:
            facts.append(f"{words} {format_rate(found.median)} {unit_of(name)}".strip())
    pooled = pooled_words(group.pooled)
    return ", ".join([*facts, *_score(group), *_memory(group), *([pooled] if pooled else [])])


def at_once_lines(cells: Iterable[CellResult]) -> list[str]:
    """What questions in flight at once came to: a line for each value of `concurrency`, where it is a dimension.

    Of several cells with the same value it is the one that gave most tokens in a second.
    """
    by_value: dict[int, list[CellResult]] = {}
    for cell in cells:
        value = cell.coordinates.get("concurrency")
        if isinstance(value, int) and cell.metrics.get("requests_per_s") is not None:
            by_value.setdefault(value, []).append(cell)
    return [_at_once(value, by_value[value]) for value in sorted(by_value)]


def _at_once(value: int, cells: Sequence[CellResult]) -> str:
    best = max(cells, key=lambda cell: (cell.metrics.get("tokens_per_s_total", 0.0), cell.metrics["requests_per_s"]))
    found = {name: metric(name).with_unit(best.metrics[name]) for name in AT_ONCE if name in best.metrics}
    words = {
        "requests_per_s": "{}", "tokens_per_s_total": "{} together", "ttft_s_p95": "ttft P95 {}",
        "served_parallel": "{} run at once",
    }  # fmt: skip
    facts = ", ".join(text.format(found[name]) for name, text in words.items() if name in found)
    return f"concurrency {value}{f', best of {len(cells)} cells' if len(cells) > 1 else ''}: {facts}"


def _score(group: Group) -> list[str]:
    found = group.spreads.get("score")
    if found is None:
        return []
    interval = score_interval(group.rows)
    extent = f" ({interval[0]:.2f}–{interval[1]:.2f})" if interval and found.high <= 1 else ""
    return [f"score {found.mean:.2f}{extent}"]


def _memory(group: Group) -> list[str]:
    found = group.spreads.get("peak_rss_bytes")
    return [f"memory {format_bytes(found.high)}"] if found else []


# -- tables ----------------------------------------------------------------------------------------------------------


def task_table(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """The numbers of one task that most people want: a row for each model and number under a head."""
    served = [found for group in groups if (found := group.spreads.get("served_parallel"))]
    is_at_once = any(found.high > 1 for found in served) or any(
        "concurrency" in cell.coordinates for group in groups for cell in group.cells
    )
    shown = (*SHOWN, *AT_ONCE) if is_at_once else SHOWN
    names = [name for name in shown if any(name in group.spreads for group in groups)]
    rows = [
        (group.label, _named(name), *_cells(name, group.spreads[name]))
        for name in names
        for group in groups
        if name in group.spreads
    ]
    return [HEAD, *rows]


def _named(name: str) -> str:
    unit = unit_of(name)
    return f"{name} ({unit})" if unit and not name.endswith(("_s", "_bytes")) else name


def _cells(name: str, found: Spread) -> tuple[str, ...]:
    mean, middle, p95, p99, low, high = (
        value_text(name, value) for value in (found.mean, found.median, found.p95, found.p99, found.low, found.high)
    )
    return str(found.count), mean, middle, p95, p99, high, f"{low}–{high}"


def check_line(group: Group) -> list[str]:
    """How the checks of a model's answers went beside its score; nothing where there are none."""
    found = {name: facts for name, facts in checks_of(group.rows).items() if name != "score"}
    words = [
        f"{name} failed {facts['failures']}" if "failures" in facts else f"{name} {facts['mean']:.2f}"
        for name, facts in found.items()
    ]
    return [f"{group.label}, checks: {', '.join(words)}"] if words else []


def cost_lines(group: Group) -> list[str]:
    """What a model's answers cost, where prices are known."""
    costs = group.costs
    if costs is None or not costs.by_cell:
        return []
    unit = f" {costs.currency}" if costs.currency else ""
    cells = list(costs.by_cell.values())
    each = f"{sum(cells) / len(cells):.3g}{unit} a cell"
    extent = f" ({min(cells):.3g}–{max(cells):.3g})" if min(cells) < max(cells) else ""
    token = f"{costs.total / costs.tokens:.3g}{unit} a token, " if costs.tokens else ""
    answer = f"{costs.total / costs.answers:.3g}{unit} an answer" if costs.answers else ""
    return [f"{group.label}, cost: {costs.total:.3g}{unit} in all, {token}{answer}, {each}{extent}"]


def unit_of(name: str) -> str:
    """The unit of a number by its name; "" where it has none."""
    return metric(_column(name)).unit


def value_text(name: str, value: float) -> str:
    """A number with three digits, sizes in binary units."""
    if metric(_column(name)).is_bytes:
        return format_bytes(value)
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    return format_rate(value) if value > 0 else f"{value:.3g}"


def _column(name: str) -> str:
    return re.sub(r"\W", "_", name)[:40] or "_"
