"""`watch [CONFIG]`: `status` with a small map, live. It only reads; leaving it leaves the sweep alone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import can_draw, console, has_colours, printable, say
from ollama_sweep.machine import crew

if TYPE_CHECKING:
    from rich.text import Text

    from ollama_sweep.results.plots.heatmap import HeatmapData
    from ollama_sweep.results.status import PairStatus, SweepStatus
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

POLL_S = 0.25
REDRAW_S = 1.0
MAP_CELLS = 20_000
LANES_SHARE = 3
"""Lanes may take one part in so many of the height."""
MAP_SHARE = 10
"""Reading the cells for the map may take one part in so many of the time."""
HINT = "q or Ctrl-C leaves, the sweep goes on"


@click.command("watch", short_help="Status and a small map, live.")
@click.argument("config", required=False)
@click.option("--metric", default=None, show_default="what the task is about", help="Any numeric column of `results`.")
@shared.db_option
def command(config: str | None, metric: str | None, db: Path) -> None:
    """Show a sweep while it runs; q or Ctrl-C leaves without touching it. Without a terminal: once.

    \b
    Example:
      ollama-sweep watch
    """
    view = View(db, config, metric)
    if not (sys.stdin.isatty() and can_draw(sys.stdout)):
        for line in view.lines(80, 40, colour=False):
            say(line)
        return
    crew.compute_with_one_thread()  # what is measured meanwhile needs the others
    pid = _live(view)
    say(f"The sweep goes on (pid {pid})" if pid else "No sweep runs now")


class View:
    """What is shown, read again where the database has changed."""

    def __init__(self, db: Path, config: str | None, metric: str | None) -> None:
        self._db, self._config, self._metric = db, config, metric
        self._maps: list[HeatmapData] = []
        self._maps_of: object = None
        self._next_maps_at = 0.0
        self.status: SweepStatus | None = None

    def changed(self) -> tuple[tuple[int, int], ...]:
        """Differs whenever something was written to the database."""
        found = []
        for path in (self._db, self._db.with_name(self._db.name + "-wal")):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, path.stat().st_size))
        return tuple(found)

    def lines(self, width: int, height: int, *, colour: bool) -> list[str]:
        """The lines for a terminal of this size. Raises ConfigError, StorageError."""
        from ollama_sweep.cli.commands.status import lines_of
        from ollama_sweep.cli.map import Look, draw, height_of
        from ollama_sweep.results.status import PairStatus

        both = self._read()
        found = both.at if isinstance(both, PairStatus) else both
        wide = max(10, width - 1)
        lanes = _lanes(found, wide, height // LANES_SHARE)
        said = [part for line in lines_of(both, lanes) for part in _wrapped(line, wide)]
        is_ascii = printable("★", sys.stdout) != "★"
        chosen = self._chosen(found)
        room = height - len(said) - 2
        if chosen is not None:
            look = Look(width - 1, min(room, height_of(chosen)), colour=colour, ascii_only=is_ascii)
            arm = [f"Arm {found.pair.letter}: {found.pair.what}"[: width - 1]] if found.pair else []
            said += ["", *arm, *self._title(chosen, width - 1), *draw(chosen, look)]
        elif found.total > MAP_CELLS:
            said += ["", f"(a map of more than {MAP_CELLS} cells: ollama-sweep heatmap)"]
        return said

    def _read(self) -> SweepStatus | PairStatus:
        from ollama_sweep.cli.commands.status import read
        from ollama_sweep.results.find import find_sweeps
        from ollama_sweep.results.status import PairStatus
        from ollama_sweep.store.reader import Reader

        state = self.changed()
        with Reader.open(self._db) as reader, reader.snapshot():
            rows = find_sweeps(reader, self._config)
            both = read(reader, rows)
            self.status = found = both.at if isinstance(both, PairStatus) else both
            row = next(row for row in rows if row.name == found.sweep)
            if state != self._maps_of and time.monotonic() >= self._next_maps_at:
                if found.total <= MAP_CELLS:
                    self._read_maps(reader, row, found)
                self._maps_of = state
        return both

    def _read_maps(self, reader: Reader, row: SweepRow, found: SweepStatus) -> None:
        from ollama_sweep.results.plots import PlotOptions, heatmap

        begun = time.monotonic()
        results = list(reader.results(row.sweep_id))
        options = PlotOptions(
            metric=self._metric, sweep=row.name, spreads=found.spreads, predicts=bool(row.spec.get("goal")),
            scouted=found.scouted,
        )  # fmt: skip
        self._maps = heatmap.collect(results, options) if results else []
        self._next_maps_at = time.monotonic() + MAP_SHARE * (time.monotonic() - begun)

    def _chosen(self, found: SweepStatus) -> HeatmapData | None:
        """The map in which the sweep measures now, else the first that is not complete, else the last."""
        at = (found.running.coordinates if found.running else {}) or found.next or {}
        for data in self._maps:
            if at and all(at.get(name, value) == value for name, value in data.combination):
                return data
        return self._maps[-1] if self._maps else None

    def _title(self, data: HeatmapData, width: int) -> list[str]:
        if len(self._maps) == 1:
            return []
        from ollama_sweep.results.grids import in_words

        return [printable(in_words(data.combination), sys.stdout)[:width]]


def _wrapped(line: str, wide: int) -> list[str]:
    import textwrap

    return textwrap.wrap(printable(line, sys.stdout), wide, subsequent_indent="    ")


def _lanes(found: SweepStatus, wide: int, room: int) -> list[str]:
    """A line for each lane, as `status` has them. Where they need more room, those that are in trouble come first, and
    one line counts the others.
    """
    from ollama_sweep.cli.commands.status import lane_lines

    lines = lane_lines(found)
    tall = [len(_wrapped(line, wide)) for line in lines]
    if sum(tall) <= room:
        return lines
    left, shown = room - 1, set[int]()
    for number in sorted(range(len(lines)), key=lambda number: not found.lanes[number].is_in_trouble):
        if tall[number] > left:
            break
        left -= tall[number]
        shown.add(number)
    states = Counter(lane.state for number, lane in enumerate(found.lanes) if number not in shown)
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    rest = f"{sum(states.values())} {'more lanes' if shown else 'lanes'}: {counted} (each of them: ollama-sweep status)"
    return [*(lines[number] for number in sorted(shown)), rest]


def _live(view: View) -> int | None:
    """Show it on the terminal's second screen until the person leaves; the pid of the sweep that goes on."""
    from rich.live import Live

    screen = console(sys.stdout)
    live = Live(console=screen, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    with _keys() as keyboard, live, contextlib.suppress(KeyboardInterrupt):
        shown: object = None
        drawn_at = 0.0
        while True:
            now = view.changed(), screen.size
            if now != shown or time.monotonic() - drawn_at >= REDRAW_S:
                live.update(_frame(view, *screen.size), refresh=True)
                shown, drawn_at = now, time.monotonic()
            ready, _, _ = select.select([keyboard], [], [], POLL_S)
            if ready and os.read(keyboard, 64)[:1] in (b"q", b"Q", b"\x04", b""):
                break
    process = view.status.process if view.status else None
    return process.pid if process else None


def _frame(view: View, columns: int, lines: int) -> Text:
    from rich.text import Text

    shown = view.lines(columns, lines, colour=has_colours())[: max(1, lines - 1)]
    return Text("\n", no_wrap=True, overflow="crop").join(map(Text.from_ansi, [*shown, HINT]))


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Keys come at once and are not shown; the keyboard is as it was afterwards, also after SIGTERM. Yields it."""
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    handler = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, handler)
