"""The same for machines: `/metrics` as Prometheus reads it, `/api/…` as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ollama_sweep.core.errors import ConfigError, SweepError
from ollama_sweep.core.text import as_json
from ollama_sweep.results.find import pair_of
from ollama_sweep.results.status import SweepStatus, status_of
from ollama_sweep.web import asked as asking
from ollama_sweep.web import pages

if TYPE_CHECKING:
    from starlette.requests import Request

    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow
    from ollama_sweep.web.library import Library
    from ollama_sweep.web.streams import Streams

ROWS = 1000
"""Cells in one answer; `next` leads to more."""
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Machines:
    """The answers."""

    def __init__(self, library: Library, streams: Streams) -> None:
        self._library, self._streams = library, streams

    def routes(self) -> list[Route]:
        """Every address."""
        found: dict[str, tuple[Callable[[Reader, Request], Any], Sequence[str]]] = {
            "/api/sweeps": (self._sweeps, ()), "/api/status": (self._status, ("sweep",)),
            "/api/best": (self._best, ("sweep", "metric")), "/api/cells": (self._cells, ("sweep", "from")),
            "/api/cell": (self._cell, ("sweep", "at")),
        }  # fmt: skip
        return [
            Route("/metrics", self._metrics, methods=["GET"]),
            *(Route(path, self._json(*answer), methods=["GET"]) for path, answer in found.items()),
        ]

    def _json(
        self, answer: Callable[[Reader, Request], Any], words: Sequence[str]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            try:
                asking.check_words(request.query_params, words)
                text, code = await self._library.read(lambda reader: as_json(answer(reader, request))), 200
            except SweepError as error:
                text, code = as_json({"error": str(error)}), 404 if isinstance(error, ConfigError) else 503
            return Response(text + "\n", code, media_type="application/json")

        return answered

    # -- JSON

    @staticmethod
    def _row(reader: Reader, request: Request) -> SweepRow:
        return pages.row_of(reader, asking.Asked(sweep=request.query_params.get("sweep", "")))

    def _sweeps(self, reader: Reader, request: Request) -> dict[str, object]:
        return {"sweeps": [
            {"sweep": row.name, "engine": row.engine, "machine": row.machine, "dimensions": list(row.dimensions),
             "created_at": row.created_at, "last_run_at": row.last_run_at,
             "counts": {str(status): count for status, count in reader.counts(row.sweep_id).items()}}
            for row in reader.sweeps()
        ]}  # fmt: skip

    def _status(self, reader: Reader, request: Request) -> dict[str, object]:
        return status_of(reader, self._row(reader, request)).as_dict()

    def _best(self, reader: Reader, request: Request) -> dict[str, object]:
        from ollama_sweep.results.best import best_cells
        from ollama_sweep.results.page.gathering import MOST_CELLS
        from ollama_sweep.results.pictures import is_many

        row, wanted = self._row(reader, request), request.query_params.get("metric") or None
        if is_many(reader.counts(row.sweep_id), MOST_CELLS):
            from ollama_sweep.results.large import verdict

            with self._library.sheets.of(reader, row) as sheet:
                best, tied = verdict.best_cells(sheet.of_metric(reader, wanted), is_of_all=wanted is not None)
            return {"sweep": row.name, **best.as_dict(), "tied_cells": tied}
        found = best_cells(list(reader.results(row.sweep_id)), wanted, reader.spreads(row.sweep_id))
        return {"sweep": row.name, **found.as_dict(), "tied_cells": len(found.tied)}

    def _cells(self, reader: Reader, request: Request) -> dict[str, object]:
        row = self._row(reader, request)
        start = asking.number(request.query_params.get("from", "0"), "from", 0)
        found = reader.results_from(row.sweep_id, start, ROWS)
        end = start + ROWS
        more = asking.Asked(sweep=row.name).link("cells") + f"&from={end}" if len(found) == ROWS else None
        return {"sweep": row.name, "cells": [dict(cell.row) for cell in found], "next": more}

    def _cell(self, reader: Reader, request: Request) -> dict[str, object]:
        from ollama_sweep.results.explain import explain, place_at

        row = self._row(reader, request)
        position = asking.number(request.query_params.get("at", ""), "at", 0)
        found = explain(reader, row, place_at(reader, row, str(position), "at"))
        return {**found.as_dict(), "by_hand": list(self._library.told.commands(row, found.planned,
                                                                              found.place.coordinates))}  # fmt: skip

    # -- Prometheus

    async def _metrics(self, request: Request) -> Response:
        try:
            lines = await self._library.read(lambda reader: list(metrics_of(reader)))
            up = 1
        except SweepError:
            lines, up = [], 0
        lines += _family("ollama_sweep_up", "gauge", "the database can be read", [("", up)])
        lines += _family("ollama_sweep_pages", "gauge", "pages that listen now", [("", self._streams.count)])
        return PlainTextResponse("\n".join(lines) + "\n", media_type=PROMETHEUS)


def metrics_of(reader: Reader) -> Iterator[str]:
    """Every sweep's cells by status, and of the one that ran last (of a pair both) what `status` says in numbers."""
    rows = reader.sweeps()
    cells = [
        (_labels(sweep=row.name, status=str(status)), count)
        for row in rows for status, count in reader.counts(row.sweep_id).items()
    ]  # fmt: skip
    yield from _family("ollama_sweep_cells", "gauge", "cells of a sweep by status", cells)
    last = [row for row in rows if row is rows[0] or pair_of([rows[0], row])]
    found = [(_labels(sweep=row.name), status_of(reader, row)) for row in last]
    for name, words, of in _NUMBERS:
        values = [(labels, value) for labels, status in found if (value := of(status)) is not None]
        yield from _family(f"ollama_sweep_{name}", "gauge", words, values)


_NUMBERS: tuple[tuple[str, str, Callable[[SweepStatus], float | None]], ...] = (
    ("cells_planned", "all cells of the sweep", lambda found: found.total),
    ("cells_done", "cells with a final status", lambda found: found.done),
    ("cells_failed", "cells that were tried and gave no number", lambda found: found.failed),
    ("running", "a process measures the sweep now", lambda found: float(found.process is not None)),
    ("waiting", "that process waits for something", lambda found: float(bool(found.waiting))),
    ("paused", "a pause is asked for", lambda found: float(found.is_paused)),
    ("seconds_per_cell", "how long a cell took lately", lambda found: found.time.seconds_per_cell),
    ("seconds_left", "how long the rest will take", lambda found: found.time.seconds_left),
    ("seconds_left_low", "the same, low: 9 times in 10 it is more", lambda found: found.time.seconds_left_low),
    ("seconds_left_high", "the same, high: 9 times in 10 it is less", lambda found: found.time.seconds_left_high),
    ("drift_share", "the machine's speed against the sweep's beginning, at the last control",
     lambda found: found.drift),
    ("missing_cells", "cells that were called done and are not in this file", lambda found: found.missing_cells),
)  # fmt: skip


def _family(name: str, kind: str, words: str, values: Sequence[tuple[str, float]]) -> list[str]:
    if not values:
        return []
    return [f"# HELP {name} {words}", f"# TYPE {name} {kind}", *(f"{name}{labels} {value}" for labels, value in values)]


def _labels(**words: str) -> str:
    """`{sweep="grid"}`."""
    parts = (f'{name}="{_escaped(value)}"' for name, value in words.items())
    return "{" + ",".join(parts) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
