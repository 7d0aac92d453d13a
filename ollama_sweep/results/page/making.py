"""A report of sweeps as a page or as markdown: read in one moment, said in full, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.results.find import find_sweeps
from ollama_sweep.results.page import drawn, view
from ollama_sweep.results.page.gathering import Gathered, gather
from ollama_sweep.results.page.view import Repeat
from ollama_sweep.store.reader import Reader

if TYPE_CHECKING:
    from ollama_sweep.results.prices import PriceTable
    from ollama_sweep.store.rows import SweepRow

    Repeats = Callable[[Reader, SweepRow, Gathered], Sequence[Repeat]]
    """How a sweep and its best cell are measured again: who asks knows the commands."""

Read = tuple[Gathered, Sequence[Repeat]]


def check_free(path: Path, *, force: bool) -> None:
    """Raises ConfigError for a file that is there and may not be written over."""
    if path.exists() and not force:
        raise ConfigError("exists; use --force", str(path))


def read(configs: Sequence[str], db: Path, repeats: Repeats) -> list[Read]:
    """What is shown of each sweep, of a pair of both, all of one moment; without a config of the one that ran last.

    Raises ConfigError, StorageError.
    """
    with Reader.open(db) as reader, reader.snapshot():
        rows = [row for config in (configs or (None,)) for row in find_sweeps(reader, config)]
        found = [(row, gather(reader, row)) for row in {row.sweep_id: row for row in rows}.values()]
        return [(gathered, repeats(reader, row, gathered)) for row, gathered in found]


def page(found: Sequence[Read], *, prices: PriceTable | None = None, analysis: Sequence[str] = ()) -> bytes:
    """The page as one file."""
    from ollama_sweep.results.page import rendering

    views = []
    for number, (gathered, repeats) in enumerate(found, 1):
        pictures, notes = drawn.pictures(gathered)
        views.append(view.sweep_view(number, gathered, pictures=pictures, repeats=repeats, notes=notes, prices=prices))
    return rendering.report_page(views, analysis=analysis)
