"""The tables of a page: cells and the best of them, failures, flags, spreads, settings, machine, tasks. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.metrics import Metric, default_metric, metric
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import FLAG_MEANINGS, CellResult, Status, failure_label
from ollama_sweep.core.stats import best_set, range_and_runs, value_of
from ollama_sweep.results.grids import X, by_work, flags_of, in_word, in_words, is_told
from ollama_sweep.results.groups import Group
from ollama_sweep.results.page import maps
from ollama_sweep.results.page.gathering import Gathered
from ollama_sweep.results.words import check_line, cost_lines, group_line, task_table
from ollama_sweep.store.rows import FailedAttempt

MORE = ("load_duration_s", "size_bytes", "peak_rss_bytes", "ttft_s", "eval_rate", "energy_per_token_j")
"""Numbers of the table of cells beside the one that a task is about, where any cell has them."""
LONGEST_TEXT, SHORT_TEXT = 500, 24


@dataclass(frozen=True)
class Column:
    """A head, and whether numbers stand below it."""

    name: str
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of words under a head; `note` says what is not in it. `is_long` is opened by who wants it."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    is_long: bool = False

    def is_short(self, column: int) -> bool:
        """Its texts are so short that none is to be broken, however narrow the page is."""
        return all(len(row[column]) <= SHORT_TEXT for row in self.rows)


def _table(
    number: str, title: str, head: Sequence[tuple[str, bool]], rows: Sequence[tuple[str, ...]], *, note: str = "",
    is_long: bool = False,
) -> Table:  # fmt: skip
    return Table(number, title, tuple(Column(*one) for one in head), tuple(rows), note, is_long)


# -- cells -----------------------------------------------------------------------------------------------------------


def best_tables(number: str, cells: Sequence[CellResult]) -> Iterator[Table]:
    """The best cell of each num_ctx, of each task, and of each combination of the other dimensions that differ."""
    for count, (work, members) in enumerate(by_work(cells).items()):
        of = metric(default_metric(members))
        names = _dimensions(members)
        groups: dict[tuple[Scalar, ...], list[CellResult]] = {}
        for cell in members:
            others = tuple(cell.coordinates.get(name) for name in names if name not in ("num_batch",))
            groups.setdefault((cell.model, *others), []).append(cell)
        found = [best_set(group, of.name, of.better >= 0) for group in groups.values()] if of.better else []
        rows = [_best_row(best, tied, names, of) for best, tied in found if best is not None]
        if len(rows) > 1 and any(X in cell.coordinates for cell in members):
            title = f"Best of each num_ctx{f': {work}' if work else ''}"
            head = [*((name, True) for name in names), (_head(of), True), ("range and runs", False),
                    ("cannot be told from it", False), ("flags", False)]  # fmt: skip
            yield _table(f"{number}-best{count}", title, head, rows, is_long=len(rows) > 16)


def _best_row(best: CellResult, tied: Sequence[CellResult], names: Sequence[str], of: Metric) -> tuple[str, ...]:
    others = ", ".join(in_word(cell.coordinates.get("num_batch")) for cell in tied if "num_batch" in cell.coordinates)
    return (
        *_places(best, names), of.text(value_of(best, of.name) or 0.0), range_and_runs(best, of),
        others and f"num_batch {others}", ", ".join(sorted(flags_of(best))),
    )  # fmt: skip


def cell_table(number: str, gathered: Gathered) -> Table:
    """Every cell in the order of the plan, or of very many those to look at first."""
    cells = gathered.cells
    names = _dimensions(cells)
    named = ["model"] if len({cell.model for cell in cells}) > 1 and "model" not in names else []
    tasked = ["task"] if len({cell.task for cell in cells}) > 1 and "task" not in names else []
    own = {task: metric(default_metric([cell for cell in cells if cell.task == task])) for task in _tasks(cells)}
    main = next(iter(own.values()), metric(default_metric(cells)))
    more = [name for name in MORE if any(name in cell.metrics for cell in cells) and name != main.name]
    value = _head(main) if len({one.name for one in own.values()}) < 2 else "value"
    head = [*((name, name not in ("task", "model")) for name in (*named, *tasked, *names)), (value, True),
            ("range and runs", False), ("status", False), ("flags", False), ("attempts", True),
            *((_head(metric(name)), True) for name in more)]  # fmt: skip
    rows = []
    for cell in cells:
        of = own[cell.task]
        known = value_of(cell, of.name)
        said = "" if known is None else of.text(known) if value != "value" else f"{of.with_unit(known)} ({of.name})"
        rows.append((
            *(model_label(cell.model) for _ in named), *(cell.task for _ in tasked), *_places(cell, names), said,
            "" if known is None else range_and_runs(cell, of), _status(cell), ", ".join(sorted(flags_of(cell))),
            str(cell.attempts), *(_number(cell, name) for name in more),
        ))  # fmt: skip
    note = ""
    if gathered.is_large:
        note = (f"{len(rows)} of {gathered.total:,} cells: those that lead and those that are flagged. "
                "All of them: ollama-sweep export.")  # fmt: skip
    return _table(f"{number}-cells", "Cells", head, rows, note=note, is_long=len(rows) > 12)


def _tasks(cells: Sequence[CellResult]) -> list[str]:
    return list(dict.fromkeys(cell.task for cell in cells))


def _dimensions(cells: Sequence[CellResult]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in cell.coordinates))


def _places(cell: CellResult, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        value = cell.coordinates.get(name)
        is_there = name in cell.coordinates and is_told((name, value))
        yield (model_label(in_word(value)) if name == "model" else in_word(value)) if is_there else ""


def _status(cell: CellResult) -> str:
    return "ok" if cell.status is Status.OK else failure_label(cell.status, cell.reason)


def _number(cell: CellResult, name: str) -> str:
    value = value_of(cell, name)
    return "" if value is None else metric(name).text(value)


def _head(of: Metric) -> str:
    return f"{of.name} ({of.unit})" if of.unit and not of.is_bytes else of.name


# -- what went wrong, and what flags say -----------------------------------------------------------------------------


def failure_table(number: str, gathered: Gathered) -> Table | None:
    """How cells failed: how many of each kind, and what the engine said of one of them."""
    if gathered.sheet is not None:
        from ollama_sweep.results.large import counted

        counts = counted.labels(gathered.sheet.columns)
    else:
        counts = Counter(
            _status(cell) for cell in gathered.cells if cell.status.is_failure or cell.status is Status.SKIPPED
        )
    said: dict[str, str] = {_status(cell): cell.error for cell in reversed(gathered.cells) if cell.error}
    for error in reversed(gathered.errors):
        said.setdefault(_label(error), error.error)
    rows = [(label, str(count), _short(said.get(label, ""))) for label, count in counts.most_common()]
    head = [("how", False), ("cells", True), ("what was said, of one of them", False)]
    return _table(f"{number}-failures", "Cells without a number", head, rows) if rows else None


def _label(error: FailedAttempt) -> str:
    return failure_label(error.status, error.reason)


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def flag_table(number: str, gathered: Gathered) -> Table | None:
    """The flags that occur, and what they mean."""
    if gathered.sheet is not None:
        from ollama_sweep.results.large import counted

        counts = counted.flags(gathered.sheet.columns)
    else:
        counts = Counter(flag for cell in gathered.cells for flag in flags_of(cell))
    rows = [(str(flag), maps.signs().get(str(flag), ""), str(counts[flag]), meaning)
            for flag, meaning in FLAG_MEANINGS.items() if counts[flag]]  # fmt: skip
    head = [("flag", False), ("sign in the map", False), ("cells", True), ("what it means", False)]
    return _table(f"{number}-flags", "Flags", head, rows) if rows else None


# -- how far numbers differ, and what was set ------------------------------------------------------------------------


def spread_table(number: str, spreads: Mapping[str, Spreads]) -> Table:
    """Both spreads of each number: how far runs in one load differ, and loads of one cell."""
    rows = [(name, one.runs_words, str(one.runs.df), one.loads_words, str(one.loads.df))
            for name, one in spreads.items()]  # fmt: skip
    head = [("number", False), ("runs of one load", False), ("degrees of freedom", True), ("loads of one cell", False),
            ("degrees of freedom", True)]  # fmt: skip
    note = "" if rows else "Nothing was measured often enough to say how far runs and loads differ."
    return _table(f"{number}-spreads", "Spreads", head, rows, note=note)


def lane_table(number: str, gathered: Gathered) -> Table | None:
    """What each lane has measured, how it stands, and how fast it is beside the others."""
    rows = []
    for lane in gathered.lanes:
        where = f"GPU {lane.gpu}" if lane.gpu is not None else "a server"
        state = f"{lane.state}: {_short(lane.says)}" if lane.says else lane.state
        does = in_words(lane.doing.items()) if lane.doing and gathered.writer is not None else state
        factor = gathered.factors[lane.name].words if lane.name in gathered.factors else ""
        rows.append((lane.name, where, does, str(lane.ok), str(lane.failed), factor))
    head = [("lane", False), ("where", False), ("now", False), ("measured", True), ("failed", True),
            ("factor of its speed", False)]  # fmt: skip
    return _table(f"{number}-lanes", "Lanes", head, rows) if rows else None


def settings_table(number: str, gathered: Gathered) -> Table:
    """Everything that the sweep was told."""
    rows = [(name, _written(value)) for name, value in gathered.row.spec.items() if value not in ("", {}, [], None)]
    return _table(f"{number}-settings", "Settings", [("setting", False), ("value", False)], rows, is_long=True)


def surroundings_table(number: str, gathered: Gathered) -> Table:
    """The machine, the engine, and their versions."""
    rows = [("machine", gathered.row.machine), ("engine", gathered.row.engine)]
    rows += [(str(name), _written(value)) for name, value in gathered.surroundings.items()
             if name != "engine" and value not in ("", [], None)]  # fmt: skip
    return _table(f"{number}-machine", "Machine", [("what", False), ("value", False)], rows)


def _written(value: object) -> str:
    if isinstance(value, str):
        return _short(value)
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        return _short(", ".join(in_word(one) for one in value))
    return _short(json.dumps(value, ensure_ascii=False))


# -- models at tasks -------------------------------------------------------------------------------------------------


def group_tables(number: str, groups: Sequence[Group]) -> Iterator[Table]:
    """What each task says of each model: the table of `report`."""
    for count, task in enumerate(dict.fromkeys(group.task for group in groups)):
        members = [group for group in groups if group.task == task]
        first, *rows = task_table(members)
        head = [(name, at > 1) for at, name in enumerate(first)]
        lines = [line for group in members for line in (group_line(group), *check_line(group), *cost_lines(group))]
        note = " ".join(f"{line}." for line in lines)
        yield _table(f"{number}-task{count}", f"Task {task}", head, rows, note=note, is_long=len(rows) > 12)
