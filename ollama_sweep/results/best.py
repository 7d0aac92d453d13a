"""The best cells of a sweep, in words: a set, not a point, with what speaks against taking it as it is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ollama_sweep.core.cell import MAIN_TASK, model_label
from ollama_sweep.core.metrics import Metric, default_metric, find_metric
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import FLAG_MEANINGS, CellResult, Flag, failure_label
from ollama_sweep.core.stats import best_set, interval_of, range_and_runs, value_of
from ollama_sweep.core.text import harmless
from ollama_sweep.results.grids import (
    Grid,
    Progress,
    X,
    Y,
    by_work,
    flags_of,
    in_words,
    length_of,
    make_grids,
    place_of,
    progress,
)

MOST_TIED = 5
NO_SPREADS: Mapping[str, Spreads] = MappingProxyType({})
_WARNED = (Flag.UNSTABLE, Flag.SPILLED, Flag.CLAMPED, Flag.UNFILLED, Flag.NOISY, Flag.DRIFTED, Flag.THROTTLED,
           Flag.WARM, Flag.BUSY, Flag.SHARED_GPU, Flag.IMPORTED, Flag.DISTURBED)  # fmt: skip


@dataclass(frozen=True)
class Best:
    """The best cell of some results, those tied with it, and what to know before using it.

    `by_context` holds the best cell of each num_ctx, everything else as in the winner; `by_model` the best of each
    model where there are several. Where the prompt's length is a dimension `by_length` holds the best of each length,
    and the winner is that of the longest one with a number: a num_ctx that is good for it holds every shorter prompt.
    `winner` is None where nothing was measured. `spreads` are those of runs and loads, None where the metric has none:
    a mean over questions, or one that loads are not compared by.
    """

    metric: Metric
    winner: CellResult | None
    tied: tuple[CellResult, ...] = ()
    by_context: tuple[CellResult, ...] = ()
    by_model: tuple[CellResult, ...] = ()
    by_length: tuple[CellResult, ...] = ()
    warnings: tuple[str, ...] = ()
    spreads: Spreads | None = None

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {
            "metric": self.metric.name,
            "best": _as_dict(self.winner, self.metric) if self.winner else None,
            "tied": [_as_dict(cell, self.metric) for cell in self.tied],
            "best_of_each_num_ctx": [_as_dict(cell, self.metric) for cell in self.by_context],
            "best_of_each_model": [_as_dict(cell, self.metric) for cell in self.by_model],
            "best_of_each_prompt_tokens": [_as_dict(cell, self.metric) for cell in self.by_length],
            "spreads": self.spreads.as_dict() if self.spreads else None,
            "warnings": list(self.warnings),
        }


def by_task(results: Sequence[CellResult]) -> dict[str, list[CellResult]]:
    """The results of each task; the main one, which measures the prompt, comes first."""
    tasks = sorted(dict.fromkeys(result.task for result in results), key=lambda task: task != MAIN_TASK)
    return {task: [result for result in results if result.task == task] for task in tasks}


def best_cells(
    results: Sequence[CellResult], metric: str | None = None, spreads: Mapping[str, Spreads] = NO_SPREADS
) -> Best:
    """The best cells by a metric; None: by that of the main task, among its cells. `spreads` are those of each metric.

    Raises ConfigError for a metric that the results do not have.
    """
    if metric is None:
        results = next(iter(by_task(results).values()), [])
        metric = default_metric(results)
    found = find_metric(metric, results)
    by_length = _by_length(found, results)
    if by_length:
        results = [result for result in results if length_of(result) == length_of(by_length[-1])]
    grids = make_grids(results)
    winner, tied = _best(found, [cell for grid in grids for cell in grid.cells.values()])
    if winner is None:
        return Best(found, None)
    home = next(grid for grid in grids if any(cell is winner for cell in grid.cells.values()))
    columns = [[cell for place, cell in home.cells.items() if place[0] == column] for column in home.columns]
    models = list(dict.fromkeys(result.model for result in results))
    by_model = [_best(found, [result for result in results if result.model == model])[0] for model in models]
    return Best(
        metric=found,
        winner=winner,
        tied=tied,
        by_context=tuple(cell for column in columns if (cell := _best(found, column)[0])),
        by_model=tuple(cell for cell in by_model if cell) if len(models) > 1 else (),
        by_length=by_length,
        warnings=tuple(_warnings(results, home, winner, tied, found)),
        spreads=spreads.get(found.name),
    )


def _by_length(metric: Metric, results: Sequence[CellResult]) -> tuple[CellResult, ...]:
    """The best cell of each length of the prompt, the longest last; none where the length is no dimension."""
    lengths = sorted({length for result in results if (length := length_of(result)) is not None})
    found = (_best(metric, [result for result in results if length_of(result) == length])[0] for length in lengths)
    return tuple(cell for cell in found if cell)


def describe_best(
    results: Sequence[CellResult],
    metric: str | None = None,
    spreads: Mapping[str, Spreads] = NO_SPREADS,
    *,
    contexts: bool = True,
) -> str:
    """The best in words; with `contexts` also the best num_batch of each num_ctx as a table.

    Without a metric the main task is described so, and every further one in a line. Each length of the prompt is
    described by itself: a longer one is read more slowly wherever it is.
    """
    if metric is not None and not any(map(length_of, results)):
        return _described(results, best_cells(results, metric, spreads), contexts=contexts)
    parts = by_work(results)
    if len(parts) < 2:
        return _described(results, best_cells(results, metric, spreads), contexts=contexts)
    first = next(iter(parts.values()))[0].task
    lines = []
    for work, members in parts.items():
        best = best_cells(members, metric, spreads)
        if members[0].task == first:
            lines += [f"{harmless(work)}:", _described(members, best, contexts=contexts)]
        else:
            lines.append(harmless(f"{work}: {_in_a_line(members, best)}"))
    return "\n".join(lines)


def described(
    winner: CellResult,
    tied: Sequence[CellResult],
    count: int,
    metric: Metric,
    done: Progress,
    spreads: Spreads | None = None,
    around: Sequence[str] = (),
    by_model: Sequence[CellResult] = (),
) -> str:
    """The best of very many cells in words; `tied` are the first of `count` that cannot be told from it, `around` is
    what the cells around it say.
    """
    warnings = tuple(own_warnings(winner, metric, done, around))
    best = Best(metric, winner, tuple(tied), by_model=tuple(by_model), warnings=warnings, spreads=spreads)
    return _all_lines(best, count, contexts=False)


def in_a_line(winner: CellResult, tied: Sequence[CellResult], count: int, metric: Metric) -> str:
    """The same in short."""
    return _line_of(Best(metric, winner, tuple(tied)), count)


def _spread_words(spreads: Spreads | None) -> list[str]:
    """How far runs of one load differ, and loads of one cell."""
    return [f"Spread: {spreads.words}."] if spreads is not None else []


def _in_a_line(results: Sequence[CellResult], best: Best) -> str:
    return _nothing(results, best.metric) if best.winner is None else _line_of(best, len(best.tied))


def _line_of(best: Best, count: int) -> str:
    assert best.winner is not None
    tied = f" Tied with it: {_tied_words(best, count)}." if best.tied else ""
    return f"best {best.metric.words}, {_sentence(best.winner, best.metric)}.{tied}"


def _described(results: Sequence[CellResult], best: Best, *, contexts: bool) -> str:
    if best.winner is None:
        return _nothing(results, best.metric)
    return _all_lines(best, len(best.tied), contexts=contexts)


def _all_lines(best: Best, count: int, *, contexts: bool) -> str:
    assert best.winner is not None
    lines = [f"Best: {_sentence(best.winner, best.metric)}."]
    if best.tied:
        lines.append(f"Tied with it: {_tied_words(best, count)}.")
    lines += _spread_words(best.spreads)
    if best.by_model:
        lines += [
            "Best of each model:",
            *(f"  {model_label(cell.model)}: {_sentence(cell, best.metric)}" for cell in best.by_model),
        ]
    if contexts and len(best.by_context) > 1:
        lines += _context_table(best)
    return "\n".join(map(harmless, [*lines, *(f"Note: {warning}" for warning in best.warnings)]))


def in_coordinates(cell: CellResult) -> str:
    """`num_ctx 4096 with num_batch 256`, other dimensions after it."""
    x, y = place_of(cell)
    place = [in_words([(name, value)]) for name, value in ((X, x), (Y, y)) if value is not None]
    others = in_words(pair for pair in cell.coordinates.items() if pair[0] not in (X, Y))
    return ", ".join(part for part in (" with ".join(place), others) if part) or cell.model


def _best(metric: Metric, cells: Sequence[CellResult]) -> tuple[CellResult | None, tuple[CellResult, ...]]:
    return best_set(cells, metric.name, higher_is_better=metric.better >= 0)


def _sentence(cell: CellResult, metric: Metric) -> str:
    value = value_of(cell, metric.name)
    return f"{in_coordinates(cell)}: {metric.with_unit(value or 0.0)}{_spread(cell, metric)}"


def _spread(cell: CellResult, metric: Metric) -> str:
    text = range_and_runs(cell, metric)
    return f" ({text})" if text else ""


def _tied_words(best: Best, count: int) -> str:
    """The first of those that are tied, of so many."""
    shown = [
        f"{in_coordinates(cell)} ({best.metric.text(value_of(cell, best.metric.name) or 0.0)})"
        for cell in best.tied[:MOST_TIED]
    ]
    more = count - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _context_table(best: Best) -> list[str]:
    unit = best.metric.unit if not best.metric.is_bytes else ""
    rows = [("num_ctx", "num_batch", unit or best.metric.name, "")]
    for cell in best.by_context:
        value = value_of(cell, best.metric.name) or 0.0
        star = " ★" if cell is best.winner else ""
        star += f" {Flag.REUSED}" if Flag.REUSED in cell.flags else ""
        x, y = place_of(cell)
        rows.append((str(x), str(y), best.metric.text(value), _spread(cell, best.metric) + star))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    head = "Best num_batch of each num_ctx:"
    return [head, *("  " + "  ".join(row[i].rjust(widths[i]) for i in range(3)) + row[3] for row in rows)]


def _warnings(
    results: Sequence[CellResult], home: Grid, winner: CellResult, tied: Sequence[CellResult], metric: Metric
) -> list[str]:
    around = _edge(home, winner, tied) or _smaller(winner, tied)
    return own_warnings(winner, metric, progress(results), around)


def own_warnings(winner: CellResult, metric: Metric, done: Progress, around: Sequence[str] = ()) -> list[str]:
    """What the winner itself says; `around`: what the cells around it say."""
    flags = flags_of(winner)
    found = [f"the best cell is {flag}: {FLAG_MEANINGS[flag]}." for flag in _WARNED if flag in flags]
    if Flag.CLAMPED in winner.flags:
        found += _effective(winner)
    if not metric.is_declared:
        found.append(f"nobody says whether a larger {metric.name} is better; the largest is shown.")
    found += around
    if Flag.IMPORTED not in winner.flags and metric.is_ranked and interval_of(winner, metric.name).coverage is None:
        found.append(_loads_unknown(winner, metric))
    open_cells = done.total - done.measured - done.failed - done.skipped
    if open_cells:
        found.append(f"{open_cells} of {done.total} cells are not measured yet, the best may change.")
    return found


def _loads_unknown(winner: CellResult, metric: Metric) -> str:
    """Nothing was measured in enough loads: what the runs of one load say is too sure."""
    found = interval_of(winner, metric.name)
    what = "what is in brackets is the range of the runs of one load" if found.low < found.high else "it ran once"
    return f"how far loads differ is not known, and {what}: what differs no more than loads do cannot be told apart."


def _effective(winner: CellResult) -> list[str]:
    used = [(name, winner.metrics.get(f"effective_{name}")) for name in (X, Y)]
    really = [(name, int(value)) for name, value in used if value and value != winner.coordinates.get(name)]
    return [f"what really ran there is {in_words(really)}."] if really else []


def _edge(home: Grid, winner: CellResult, tied: Sequence[CellResult]) -> list[str]:
    return edge(home.rows, winner, {place_of(cell)[1] for cell in tied})


def edge(rows: Sequence[Scalar], winner: CellResult, tied: Collection[Scalar]) -> list[str]:
    """The best num_batch is the smallest or largest of the sweep, and nothing inside is as good: by the values of its
    grid, and those that are tied with it.
    """
    if len(rows) < 2 or Flag.UNFILLED in flags_of(winner):
        return []
    for end, word, direction in ((rows[-1], "largest", "a larger"), (rows[0], "smallest", "a smaller")):
        if place_of(winner)[1] == end and all(value == end for value in tied):
            return [f"num_batch {end} is the {word} of this sweep; {direction} one may be better still."]
    return []


def _smaller(winner: CellResult, tied: Sequence[CellResult]) -> list[str]:
    like = {**winner.coordinates, Y: None}
    return smaller(winner, [place_of(cell)[1] for cell in tied if {**cell.coordinates, Y: None} == like])


def smaller(winner: CellResult, tied: Collection[Scalar]) -> list[str]:
    """The smallest num_batch that does as well at the same num_ctx, of those that are tied there."""
    num_ctx, num_batch = place_of(winner)
    less = [batch for batch in tied if isinstance(batch, int) and isinstance(num_batch, int) and batch < num_batch]
    if not less:
        return []
    return [f"num_batch {min(less)} is tied with it at num_ctx {num_ctx} and needs less memory."]


def _nothing(results: Sequence[CellResult], metric: Metric) -> str:
    causes = Counter(failure_label(result.status, result.reason) for result in results if result.status.is_failure)
    return nothing(progress(results), causes, metric)


def nothing(done: Progress, causes: Counter[str], metric: Metric) -> str:
    """What is said where no cell has a number; `causes` counts the words for failures."""
    if done.measured:
        return f"No cell has a believed {metric.name}."
    if not done.failed:
        return "No measured cells yet."
    return f"No cell has a number: {', '.join(f'{label} ({count})' for label, count in causes.most_common())}."


def _as_dict(cell: CellResult, metric: Metric) -> dict[str, object]:
    found = interval_of(cell, metric.name)
    return {
        **cell.coordinates,
        "model": cell.model,
        metric.name: value_of(cell, metric.name),
        "low": found.low,
        "high": found.high,
        "coverage": found.coverage,
        "runs": int(cell.metrics.get("runs", 0)),
        "flags": sorted(flags_of(cell)),
    }
