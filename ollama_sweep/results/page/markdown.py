"""A report as GitHub's markdown, to be pasted into an issue: with the machine, without paths, short enough. Pure.

Text of others steers nothing: marks that are not seen are written out, what markdown would read is escaped, and no name
becomes a link or calls a person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ollama_sweep.core.text import harmless
from ollama_sweep.machine.secrets import masked
from ollama_sweep.results.grids import in_words, make_grids
from ollama_sweep.results.groups import make_groups
from ollama_sweep.results.page import maps, tables, view
from ollama_sweep.results.page.tables import Column, Table
from ollama_sweep.results.page.view import Repeat
from ollama_sweep.results.plots.shared import heatmap_data

if TYPE_CHECKING:
    from ollama_sweep.results.page.gathering import Gathered
    from ollama_sweep.results.prices import PriceTable

MOST_BYTES = 60_000
MOST_ACROSS, MOST_MAPS, LONGEST_CELL = 20, 8, 200
_PATH = re.compile(r"(?<![\w.:/\\])(?:~|[A-Za-z]:)?[/\\]+(?:[^\s/\\:\"'`,;()<>|]+[/\\]+)+([^\s/\\:\"'`,;()<>|]+)")
_MARKS = re.compile(r"([\\`*\[\]<>|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^\s*(?:[#+>-]|\d+[.)])(?=\s)|&(?=[#A-Za-z]))")
_CALLS = re.compile(r"(?<=[@#])(?=\w)|(?<=http)(?=s?:)|(?<=www)(?=\.)|(?<=GH)(?=-\d)", re.IGNORECASE)
_PRIVATE = frozenset({"host", "template", "modelfile", "hosts", "servers"})
"""Settings that are of the person's computer, or long."""


def markdown(
    found: Sequence[tuple[Gathered, Sequence[Repeat]]], *, prices: PriceTable | None = None,
    analysis: Sequence[str] = (),
) -> str:  # fmt: skip
    """All of it, the verdict first; at most MOST_BYTES, and what is left out for that is said."""
    parts = [part for gathered, repeats in found for part in _sweep(gathered, repeats, prices)]
    lines = [escaped(line) for text in analysis for line in text.splitlines() if line.strip()]
    parts += [_paragraphs(["## Analysis by a model", *lines])] if analysis else []
    return _bounded(parts)


def _bounded(parts: Sequence[str]) -> str:
    """The parts in order as far as there is room; a table is cut at a row."""
    said = "\n_Left out, because an issue has no room for it: {}._\n"
    room = MOST_BYTES - 400
    kept, left_out = [], []
    for part in parts:
        size = len(part.encode()) + 1
        if size <= room:
            kept.append(part)
            room -= size
            continue
        title = part.partition("\n")[0].lstrip("# ")
        left_out.append(title[:60])
        if part.count("\n") > 12 and room > 2000:
            lines = part.split("\n")
            while len("\n".join(lines).encode()) + 1 > room:
                lines = lines[: len(lines) * 9 // 10]
            kept.append("\n".join(lines) + "\n")
            left_out[-1] = f"the end of {left_out[-1]}"
            room -= len(kept[-1].encode()) + 1
    return "\n".join(kept) + (said.format(", ".join(left_out[:5])) if left_out else "")


def _sweep(gathered: Gathered, repeats: Sequence[Repeat], prices: PriceTable | None) -> Iterator[str]:
    lines = [f"## Sweep {escaped(gathered.row.name)}"]
    lines += [_line(line.text, line.kind) for line in view.verdict(gathered)]
    yield _paragraphs([*lines, *(f"> {escaped(notice)}" for notice in view.notices(gathered))])
    known = [Column("what"), Column("value")]
    rows = tuple((name, value) for name, value in view.facts(gathered))
    yield _table(Table("", "What was measured", tuple(known), rows))
    yield from (_table(table) for table in _maps(gathered))
    if not gathered.is_large:
        yield from (_table(table) for table in tables.best_tables("", gathered.cells))
    further = [
        tables.lane_table("", gathered), tables.failure_table("", gathered), tables.flag_table("", gathered),
        tables.spread_table("", gathered.spreads),
        tables.surroundings_table("", gathered), _settings(gathered),
    ]  # fmt: skip
    yield from (_table(table) for table in further if table is not None)
    if not gathered.is_large:
        groups = make_groups(gathered.answers, gathered.cells, prices)
        yield from (_table(table) for table in tables.group_tables("", groups))
    for repeat in repeats:
        yield f"{escaped(repeat.what)}\n\n{_fenced([_short_path(line) for line in repeat.commands])}\n"
    if not gathered.is_large:
        yield _table(tables.cell_table("", gathered))


def _line(text: str, kind: str) -> str:
    return f"### {escaped(text)}" if kind == "head" else f"**{escaped(text)}**" if kind == "best" else escaped(text)


def _settings(gathered: Gathered) -> Table:
    found = tables.settings_table("", gathered)
    return Table("", found.title, found.columns, tuple(row for row in found.rows if row[0] not in _PRIVATE))


def _maps(gathered: Gathered) -> Iterator[Table]:
    """Each map as a table, num_batch down; of a wide one the columns that fit, evenly taken."""
    if gathered.is_large:
        return
    grids = make_grids(gathered.cells)
    drawn = zip(heatmap_data.collect(gathered.cells, view.options_of(gathered)), grids, strict=True) if grids else ()
    for number, (data, _) in enumerate(drawn):
        if number == MOST_MAPS:
            return
        step = -(-len(data.columns) // MOST_ACROSS)
        columns, words = data.columns[::step], maps.labels(data.x, data.columns)[::step]
        rows = []
        for value, label in zip(data.rows, maps.labels(data.y, data.rows), strict=True):
            marks = [data.cells.get((column, value)) for column in columns]
            rows.append(
                (label, *("" if mark is None else f"{'★ ' if mark.best else ''}{mark.label}" for mark in marks))
            )
        others = in_words(pair for pair in data.combination if pair[0] != "model")
        title = ", ".join(filter(None, (data.title, others)))
        head = (Column(f"{data.y} \\ {data.x}", True), *(Column(word, True) for word in words))
        note = f"{len(columns)} of {len(data.columns)} columns, evenly taken." if step > 1 else ""
        yield Table("", title, head, tuple(rows), note)


# -- markdown --------------------------------------------------------------------------------------------------------


def escaped(text: str, hide: Callable[[str], str] = masked) -> str:
    """Text of others as a part of a paragraph or a table: nothing in it is read as markdown, HTML or a name to call.

    `hide` takes out what is secret.
    """
    text = _short_path(hide(harmless(text if len(text) <= LONGEST_CELL * 10 else text[: LONGEST_CELL * 10] + "…")))
    text = _MARKS.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}" if found[0] != "&" else "&amp;", text)
    return _CALLS.sub("<!-- -->", text)


def _short_path(text: str) -> str:
    """Paths without their folders: `/home/me/models/a.gguf` is `a.gguf`."""
    return _PATH.sub(r"\1", text)


def _table(table: Table) -> str:
    lines = [f"### {escaped(table.title)}", ""]
    lines += [escaped(table.note), ""] if table.note else []
    if table.rows:
        whole = "\n".join("\n".join(row) for row in table.rows)
        hide = str if masked(whole) == whole else masked  # to look at each text by itself takes long
        lines.append(f"| {' | '.join(escaped(column.name) for column in table.columns)} |")
        lines.append(f"| {' | '.join('---:' if column.is_number else ':---' for column in table.columns)} |")
        lines += [f"| {' | '.join(_cell(cell, hide) for cell in row)} |" for row in table.rows]
    return "\n".join(lines) + "\n"


def _cell(text: str, hide: Callable[[str], str]) -> str:
    first = " ".join(text.split())
    return escaped(first if len(first) <= LONGEST_CELL else first[:LONGEST_CELL] + "…", hide)


def _paragraphs(lines: Sequence[str]) -> str:
    return "\n\n".join(lines) + "\n"


def _fenced(lines: Sequence[str]) -> str:
    """Commands as they are, in a fence longer than any in them."""
    text = masked("\n".join(harmless(line) for line in lines))
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"
