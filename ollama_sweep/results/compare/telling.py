"""A comparison in words: what was compared, the verdict over all, the cells that matter first. Text and markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.noise.spread import Spreads
from ollama_sweep.core.outcome import Flag
from ollama_sweep.core.text import harmless
from ollama_sweep.results.compare.comparing import ComparedCell, Comparison, Part
from ollama_sweep.results.compare.rule import MOST_LOADS, Judged, Verdict
from ollama_sweep.results.grids import in_word

SHOWN = 30
"""Rows of a table, unless all are asked for."""
_ORDER = (Verdict.TO_OOM, Verdict.TO_SPILLED, Verdict.SLOWER, Verdict.FASTER, Verdict.FROM_OOM, Verdict.FROM_SPILLED,
          Verdict.CANNOT_TELL, Verdict.SAME)  # fmt: skip


def text(found: Comparison, *, rows: int | None = SHOWN) -> str:
    """All of it, with at most so many rows in each table."""
    lines = head(found)
    for part in found.parts:
        lines += ["", *summary(found, part)]
        if shown := table(found, part, rows=rows):
            lines += ["", *_aligned(shown), *more(part, rows)]
    return "\n".join(map(harmless, lines))


def markdown(found: Comparison, *, rows: int | None = SHOWN) -> str:
    """The same for a pull request or a page."""
    lines = [f"- {line}" for line in head(found)]
    for part in found.parts:
        first, *others = summary(found, part)
        lines += ["", f"**{_escaped(first)}**", "", *(f"- {_escaped(line)}" for line in others)]
        if shown := table(found, part, rows=rows):
            names, *body = [[_escaped(cell) for cell in row] for row in shown]
            marks = [":--", *("--:" for _ in names[1:])]
            lines += ["", *(f"| {' | '.join(row)} |" for row in (names, marks, *body)), "", *more(part, rows)]
    return "\n".join(map(harmless, lines)).rstrip()


def head(found: Comparison) -> list[str]:
    """What is compared, and what to know of it."""
    return [f"A: {found.a.words()}", f"B: {found.b.words()}", *(f"Note: {note}." for note in found.notes)]


def summary(found: Comparison, part: Part) -> list[str]:
    """What a task's cells came to."""
    unit = f" in {part.metric.unit}" if part.metric.unit and not part.metric.is_bytes else ""
    words = f"{part.metric.words[:1].upper()}{part.metric.words[1:]}"
    title = f"{part.task}: {words}{unit} ({part.metric.direction}), beyond {percent(found.threshold)}"
    return [title, _over_all(part), _counted(found, part), *_noise(part), *_disturbed(part)]


def _over_all(part: Part) -> str:
    judged = part.over_all
    if judged is None or judged.ratio is None:
        return "Over all: no cell can be compared."
    said = f"Over all: {verdict_words(part, judged)}. B against A {change(judged.ratio)}"
    count = sum(
        part.counts()[verdict] for verdict in (Verdict.SLOWER, Verdict.FASTER, Verdict.SAME, Verdict.CANNOT_TELL)
    )
    of = f"{count} cell{'s' if count != 1 else ''}"
    return f"{said}{f' ({interval(judged)})' if judged.low is not None else ''}, {of}."


def _counted(found: Comparison, part: Part) -> str:
    counts = ", ".join(f"{count} {part.word(verdict)}" for verdict, count in part.counts().items())
    out = [f"{count} {why}" for why, count in part.left_out().items()]
    only = [f"{count} only in {letter}" for letter, count in (("A", found.only_a), ("B", found.only_b)) if count]
    rest = f" Left out: {', '.join([*out, *only])}." if out or only else ""
    return f"Cells: {counts}.{rest}"


def _noise(part: Part) -> Iterator[str]:
    if not part.needs_loads:
        yield "The error is that of the questions, compared one by one where both sides were asked them."
        return
    if not part.noise.is_known:
        so_far = max(part.noise.a.loads.df, part.noise.b.loads.df)
        needed = f"{part.missing} more load{'s' if part.missing != 1 else ''} of cells that have one"
        yield f"Loads not known: cannot tell. {needed} would say how far loads differ ({so_far} so far)."
        return
    yield f"Noise of A: {spreads_words(part.noise.a)}; of B: {spreads_words(part.noise.b)}."
    if noisy := sum(Flag.NOISY in cell.flags[0] | cell.flags[1] for cell in part.cells if not cell.left_out):
        be, theirs = ("is", "its") if noisy == 1 else ("are", "their")
        yield (f"{noisy} of the cells {be} flagged noisy and judged all the same: {theirs} runs scatter as all runs do "
               "here, and the intervals hold that.")  # fmt: skip
    turns = part.turns
    if turns.changes:
        spread = f"± {percent(turns.spread.sigma)} ({turns.spread.df} degrees of freedom)"
        cells = f"{len(turns.changes)} cell{'s' if len(turns.changes) != 1 else ''}"
        yield f"Turns: {turns.turns}, whose differences scatter by {spread}; {cells} judged by them."


def _disturbed(part: Part) -> Iterator[str]:
    if disturbed := sum(Flag.DISTURBED in cell.flags[0] & cell.flags[1] for cell in part.cells if not cell.left_out):
        be = "is" if disturbed == 1 else "are"
        yield (f"{disturbed} of the cells {be} flagged disturbed on both sides: other lanes were at work beside both, "
               "and what is judged is how they do then.")  # fmt: skip


def spreads_words(spreads: Spreads) -> str:
    """`runs ± 1.2 %, loads ± 3.0 % (19 degrees of freedom)`."""
    runs = f"runs ± {percent(spreads.runs.sigma)}, " if spreads.runs.df else ""
    return f"{runs}loads ± {percent(spreads.loads.sigma)} ({spreads.loads.df} degrees of freedom)"


def table(found: Comparison, part: Part, *, rows: int | None = SHOWN) -> list[list[str]]:
    """Head and rows, the cells that changed first; none where there is no cell."""
    if not part.cells:
        return []
    unit = f" ({part.metric.unit})" if part.metric.unit and not part.metric.is_bytes else ""
    names = list(found.dimensions) or ["model"]
    first = ["verdict", *names, f"A{unit}", f"B{unit}", "change", "95 %", "loads"]
    ordered = sorted(part.cells, key=lambda cell: _rank(cell))
    return [first, *(_row(part, cell, names) for cell in ordered[:rows])]


def more(part: Part, rows: int | None) -> list[str]:
    """What is said below a table that does not show all."""
    hidden = len(part.cells) - rows if rows is not None else 0
    return [f"and {hidden} more cells (--all shows them)"] if hidden > 0 else []


def _rank(cell: ComparedCell) -> tuple[int, float]:
    if cell.left_out or cell.judged is None:
        return len(_ORDER), 0.0
    ratio = cell.judged.ratio
    size = -abs(ratio - 1) if ratio is not None else 0.0
    return _ORDER.index(cell.judged.verdict), size


def _row(part: Part, cell: ComparedCell, names: Sequence[str]) -> list[str]:
    known = {"model": cell.models[0], **cell.coordinates}
    place = [model_label(in_word(known.get(name))) if name == "model" else in_word(known.get(name)) for name in names]
    values = [
        part.metric.text(value) if value is not None else str(status)
        for value, status in zip(cell.values, cell.statuses, strict=True)
    ]
    judged = cell.judged
    ratio = change(judged.ratio) if judged and judged.ratio is not None else ""
    loads = " + ".join(str(loads) for _, loads in cell.rests_on) if cell.change else ""
    return [_said(part, cell), *place, *values, ratio, interval(judged) if judged else "", loads]


def _said(part: Part, cell: ComparedCell) -> str:
    if cell.left_out or cell.judged is None:
        flags = sorted(cell.flags[0] | cell.flags[1])
        return f"left out: {cell.left_out}{f' ({chr(44).join(flags)})' if flags and cell.left_out == 'flagged' else ''}"
    return verdict_words(part, cell.judged)


def verdict_words(part: Part, judged: Judged) -> str:
    """`slower`, or `cannot tell (2 more loads would)`."""
    word = part.word(judged.verdict)
    if judged.verdict is not Verdict.CANNOT_TELL or not part.needs_loads:
        return word
    if judged.low is None:
        return f"{word} (loads not known)"
    if judged.more_loads is None:
        return f"{word} (more than {MOST_LOADS} more loads)"
    return f"{word} ({judged.more_loads} more load{'s' if judged.more_loads != 1 else ''} of each)"


def change(ratio: float) -> str:
    """`-4.9 %`: what B is above or below A."""
    return f"{100 * (ratio - 1):+.1f} %"


def interval(judged: Judged) -> str:
    """`-7.1 to -2.6 %`."""
    if judged.low is None or judged.high is None:
        return ""
    return f"{100 * (judged.low - 1):+.1f} to {100 * (judged.high - 1):+.1f} %"


def percent(share: float) -> str:
    """`1.2 %`."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.rjust(widths[n]) if n else cell.ljust(widths[n]) for n, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
