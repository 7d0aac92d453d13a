"""Results as grids: two dimensions (num_ctx across, num_batch down), one grid per combination of all others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS, model_label
from ollama_sweep.core.judge import is_unfilled
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import CellResult, Flag, Status
from ollama_sweep.machine.files import safe_name

X, Y = "num_ctx", "num_batch"
Place = tuple[Scalar, Scalar]


@dataclass(frozen=True)
class Grid:
    """One grid. `combination` holds the dimensions other than its two (num_ctx and num_batch), outermost first; the
    prompt's length only where its cells have one.

    `cells` maps (x, y) to the result there; a place without one is not part of the sweep.
    A dimension that is not swept has the one value None.
    """

    combination: Options
    model: str
    columns: tuple[Scalar, ...]
    rows: tuple[Scalar, ...]
    cells: Mapping[Place, CellResult]


@dataclass(frozen=True)
class Progress:
    """How far a grid is; skipped cells will never be measured, failed ones were tried."""

    measured: int
    failed: int
    skipped: int
    total: int

    def text(self) -> str:
        """`412 of 624 measured, 3 failed, 12 skipped`."""
        parts = [f"{self.measured} of {self.total} measured", f"{self.failed} failed"]
        return ", ".join([*parts, f"{self.skipped} skipped"] if self.skipped else parts)


def make_grids(results: Sequence[CellResult], x: str = X, y: str = Y) -> list[Grid]:
    """One grid per combination, in the order in which the combinations first appear.

    `x` and `y` are dimensions, or `model`, `task`, `engine`, `sweep`. Tasks are always kept apart, models where a task
    has several (one that brings its own model does not count); engines and sweeps where two of their cells would have
    the same place.
    """
    tasks = {result.task for result in results}
    models = {(result.task, result.model) for result in results}
    apart = [name for name, several in (("model", len(models) > len(tasks)), ("task", len(tasks) > 1)) if several]
    groups = _grouped(results, x, y, apart)
    for name in ("engine", "sweep"):
        if any(_collides(members, x, y, name) for members in groups.values()):
            apart.append(name)
            groups = _grouped(results, x, y, apart)
    return [_grid(combination, members, x, y) for combination, members in groups.items()]


def value_at(result: CellResult, name: str) -> Scalar:
    """The value of a dimension, or of `model`, `task`, `engine`, `sweep`; None where the result has none."""
    if name in result.coordinates:
        return result.coordinates[name]
    if name in ("model", "task"):
        return result.model if name == "model" else result.task
    return result.row.get(name)


def _grouped(results: Sequence[CellResult], x: str, y: str, apart: Sequence[str]) -> dict[Options, list[CellResult]]:
    swept = dict.fromkeys(name for result in results for name in result.coordinates)
    names = [name for name in dict.fromkeys([*swept, *apart]) if name not in (x, y)]
    groups: dict[Options, list[CellResult]] = {}
    for result in results:
        pairs = ((name, value_at(result, name)) for name in names)
        groups.setdefault(tuple(filter(is_told, pairs)), []).append(result)
    return groups


def is_told(pair: tuple[str, Scalar]) -> bool:
    """A dimension that says something of these cells: tasks with questions of their own have no prompt's length."""
    return pair != (PROMPT_TOKENS, None)


def _collides(results: Sequence[CellResult], x: str, y: str, name: str) -> bool:
    """Two cells with the same place differ in `name`."""
    if name in (x, y) or len({value_at(result, name) for result in results}) < 2:
        return False
    seen: dict[Place, Scalar] = {}
    return any(
        seen.setdefault(_place(result, x, y), value_at(result, name)) != value_at(result, name) for result in results
    )


def progress(results: Iterable[CellResult]) -> Progress:
    """Counts of the cells that have a result, failed, and were skipped."""
    statuses = [result.status for result in results]
    failed = sum(status.is_failure for status in statuses)
    return Progress(statuses.count(Status.OK), failed, statuses.count(Status.SKIPPED), len(statuses))


def by_work(results: Sequence[CellResult]) -> dict[str, list[CellResult]]:
    """The results by what was asked, which alone can be compared: by task, and by the prompt's length where it varies.

    The keys tell them apart in words, as far as they differ. The main task comes first, a longer prompt later.
    """
    tasks = sorted(dict.fromkeys(result.task for result in results), key=lambda task: task != MAIN_TASK)
    lengths = sorted({length_of(result) for result in results}, key=lambda length: length or 0)
    found: dict[tuple[str, int | None], list[CellResult]] = {}
    for result in results:
        found.setdefault((result.task, length_of(result)), []).append(result)
    order = [(task, length) for task in tasks for length in lengths if (task, length) in found]
    return {work_in_words(asked[0] if len(tasks) > 1 else "", asked[1]): found[asked] for asked in order}


def work_in_words(task: str, length: int | None) -> str:
    """`prompt_eval, prompt_tokens 8192`, without what is empty or None."""
    return ", ".join(part for part in (task, "" if length is None else f"{PROMPT_TOKENS} {length}") if part)


def length_of(result: CellResult) -> int | None:
    """The wanted length of the prompt where that is a dimension."""
    wanted = result.coordinates.get(PROMPT_TOKENS)
    return wanted if isinstance(wanted, int) else None


def file_suffixes(grids: Sequence[Grid]) -> list[str]:
    """What tells the grids' files apart: `_num_gpu-0` each, or one empty text where there is nothing to tell apart."""
    suffixes = [_suffix(grid.combination, exact=False) for grid in grids]
    return [
        _suffix(grid.combination, exact=True) if suffixes.count(suffix) > 1 else suffix
        for grid, suffix in zip(grids, suffixes, strict=True)
    ]


def place_of(result: CellResult) -> Place:
    """(num_ctx, num_batch) of a result; None for one that is not swept."""
    return result.coordinates.get(X), result.coordinates.get(Y)


def _place(result: CellResult, x: str, y: str) -> Place:
    return value_at(result, x), value_at(result, y)


def flags_of(result: CellResult, prompt_tokens: int | None = None) -> frozenset[Flag]:
    """The flags of a result. One that was not measured here was not judged, so it is asked whether it is `unfilled`."""
    if Flag.IMPORTED not in result.flags or result.task != MAIN_TASK or result.status is not Status.OK:
        return result.flags
    counted = result.metrics.get("prompt_eval_count")
    batch, tokens = result.coordinates.get(Y), prompt_tokens or (round(counted) if counted else None)
    is_marked = isinstance(batch, int) and is_unfilled(batch, tokens)
    return result.flags | {Flag.UNFILLED} if is_marked else result.flags


def in_words(pairs: Iterable[tuple[str, Scalar]]) -> str:
    """`num_gpu 0, kv_cache_type q8_0`."""
    return ", ".join(f"{name} {in_word(value)}" for name, value in pairs)


def in_word(value: Scalar) -> str:
    """A value as a person writes it: `true`, `q8_0`, `4096`; `default` where it is not set."""
    if value is None:
        return "default"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _grid(combination: Options, results: Sequence[CellResult], x: str, y: str) -> Grid:
    cells: dict[Place, CellResult] = {}
    for result in results:
        place = _place(result, x, y)
        if place not in cells or Flag.IMPORTED not in result.flags or Flag.IMPORTED in cells[place].flags:
            cells[place] = result
    columns = tuple(sorted({place[0] for place in cells}, key=in_order))
    rows = tuple(sorted({place[1] for place in cells}, key=in_order))
    return Grid(combination, results[0].model, columns, rows, cells)


def in_order(value: Scalar) -> tuple[int, float, str]:
    """Sorts values of a dimension: numbers ascending, then texts; a dimension that is not set comes first."""
    if value is None:
        return 0, 0.0, ""
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))


def _suffix(combination: Options, *, exact: bool) -> str:
    text = "_".join(f"{name}-{model_label(in_word(value))}" for name, value in combination)
    return f"_{safe_name(text, exact=exact)}" if text else ""
