"""A sweep as text of Go's benchmarks, which `benchstat` compares.

A line is a load, because benchstat takes lines for independent, and runs of one load are not: it has the medians of its
believed runs. What every cell has in common stands in no name, so two sweeps that differ in it are compared. Units and
which way is better are those of `core.metrics`.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.metrics import DEFAULT_METRIC, Metric, default_metric, metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status, failure_label
from ollama_sweep.core.text import harmless
from ollama_sweep.results.find import replayed_words
from ollama_sweep.results.formats import surroundings
from ollama_sweep.results.grids import X, Y, in_word

if TYPE_CHECKING:
    from ollama_sweep.results.find import Part
    from ollama_sweep.store.loads.compared import LoadRow, PlanCell
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

SHOWN = (DEFAULT_METRIC, "eval_rate", "decode_tps", "ttft_s", "latency_s", "rows_per_s", "load_duration_s")
_END = re.compile(r"(_rate|_duration_s|_bytes|_tps|_s)$")
_UNITS = {"s": "sec", "bytes": "B"}
_SOME = 100


def unit_of(about: Metric) -> str:
    """`prompt_eval-tokens/s`: benchstat makes a table for each unit, so the number's name is a part of it."""
    stem = _END.sub("", about.name)
    unit = _UNITS.get(about.unit, about.unit).replace(" ", "_")
    return f"{stem}-{unit}" if unit else stem


def lines(reader: Reader, part: Part) -> Iterator[str]:
    """The text, line by line. Raises ConfigError where no load was measured."""
    row = part.row
    chosen = _metrics(reader, row)
    shown = {name: about for names in chosen.values() for name, about in names.items()}
    merged = heapq.merge(*(_of_metric(reader, part, name) for name in shown), key=itemgetter(0, 1))
    cells = reader.plan_cells(row.sweep_id, part.segment_id)
    missing: Counter[str] = Counter()
    is_first = True
    for position, of_cell in groupby(merged, key=itemgetter(0)):
        cell = _advance(cells, position, missing)
        for _, of_load in groupby(of_cell, key=itemgetter(1)):
            values = [(name, load.values) for _, _, name, load in of_load if name in chosen[cell.task]]
            if values and is_first:
                yield from _head(reader, part, shown.values())
                is_first = False
            if values:
                yield _line(cell, values, shown)
    if is_first:
        raise ConfigError(f"the sweep {row.name} has no load with runs, so there is nothing to compare", "--format")
    missing.update(filter(None, map(_failure, cells)))
    if missing:
        told = ", ".join(f"{count} {label}" for label, count in missing.items())
        yield f"# {missing.total()} cells have no number: {told}\n"


def _line(cell: PlanCell, values: Sequence[tuple[str, Sequence[float]]], shown: Mapping[str, Metric]) -> str:
    runs = max(len(of_load) for _, of_load in values)
    measured = [f"{median(of_load)!r} {unit_of(shown[name])}" for name, of_load in values]
    return " ".join([name_of(cell), str(runs), *measured]) + "\n"


def name_of(cell: PlanCell) -> str:
    """`BenchmarkPromptEval/num_ctx=4096/num_batch=512`; the numbers come last, where no sign is taken for another."""
    task = "".join(word.capitalize() for word in cell.task.split("_"))
    told = {name: value for name, value in cell.coordinates.items() if name != "task"}
    names = [*(name for name in told if name not in (X, Y)), *(name for name in (X, Y) if name in told)]
    return "/".join([f"Benchmark{_word(task)}", *(f"{name}={_word(told[name])}" for name in names)])


def _word(value: Scalar) -> str:
    """A value without blanks, and without the sign that begins the next part of the name."""
    return re.sub(r"[\s/]+", "_", harmless(in_word(value)))


def _metrics(reader: Reader, row: SweepRow) -> dict[str, dict[str, Metric]]:
    """Of each task the numbers that its cells have and that are worth a comparison, the main one first."""
    found = {}
    for task in reader.tasks(row.sweep_id):
        some = reader.some_results(row.sweep_id, task, _SOME)
        has = {name for cell in some for name in cell.metrics}
        if all(cell.metrics.get("eval_count", 0) <= surroundings.ONLY_READING for cell in some):
            has.discard("eval_rate")
        wanted = dict.fromkeys([default_metric(some), *SHOWN])
        found[task] = {name: metric(name) for name in wanted if name in has}
    return found


def _of_metric(reader: Reader, part: Part, name: str) -> Iterator[tuple[int, int, str, LoadRow]]:
    for position, loads in reader.loads(part.row.sweep_id, part.segment_id, name):
        for load in sorted(loads, key=lambda load: load.attempt_id):
            if load.is_value:
                yield position, load.attempt_id, name, load


def _advance(cells: Iterator[PlanCell], position: int, missing: Counter[str]) -> PlanCell:
    """The cell at a position, which is there; those before it that have no number are counted."""
    for cell in cells:
        if cell.position == position:
            return cell
        missing.update(filter(None, [_failure(cell)]))
    raise KeyError(position)


def _failure(cell: PlanCell) -> str:
    return "" if cell.status is Status.OK else failure_label(cell.status, cell.reason)


def _head(reader: Reader, part: Part, shown: Iterable[Metric]) -> Iterator[str]:
    """What is measured where; benchstat keeps apart what differs in a `key: value` line, and passes over the first."""
    row, known = part.row, reader.segments()
    chosen = [part.segment_id] if part.segment_id is not None else reader.value_segments(row.sweep_id)
    here = [known[number] for number in chosen if number in known]
    versions = _each(here, surroundings.version)
    on = f"{row.engine} {versions}".strip()
    yield f"# sweep {harmless(row.name)} on {harmless(on)}; a line is a load, with the medians of its runs\n"
    if replayed := replayed_words(row):
        yield f"# {harmless(replayed)}\n"
    told = {"goos": surroundings.system, "cpu": surroundings.processor, "gpu": surroundings.gpus}
    yield from (f"{name}: {harmless(said)}\n" for name, say in told.items() if (said := _each(here, say)))
    for about in shown:
        if about.better:
            yield f"Unit {unit_of(about)} better={'higher' if about.better > 0 else 'lower'}\n"


def _each(here: Iterable[surroundings.Surroundings], say: Callable[[surroundings.Surroundings], str]) -> str:
    """What they say, each once."""
    return ", ".join(dict.fromkeys(filter(None, map(say, here))))
