"""Readings over the time of an attempt, kept short whatever it lasts: collected, packed for the database, unpacked.

A packed series is JSON, compressed with zlib. A point is a whole number from 0 (the line's smallest reading) to 999
(its largest), so it is right to a thousandth of the line's range. Where that is longer than `MOST_BYTES`, two points
become one, again and again; the smallest and the largest reading always stay.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping

from ollama_sweep.core.outcome import Line, Series

STEP_S = 1.0
MOST_POINTS = 120
MOST_BYTES = 2000
FORM = 1
_TOP = 999
_DIGITS = 6

Bucket = tuple[float, int]
"""The sum of some readings, and how many they are."""


class Collector:
    """Takes readings as they come; past so many points two become one, and a point stands for twice the time."""

    def __init__(self, step_s: float = STEP_S, most_points: int = MOST_POINTS) -> None:
        self._step_s, self._most = step_s, most_points
        self._points: dict[str, dict[int, Bucket]] = {}
        self._ends: dict[str, tuple[float, float]] = {}
        self.counts_from_s: float | None = None
        self.runs_from_s: float | None = None

    def add(self, at_s: float, readings: Mapping[str, float]) -> None:
        """Readings by quantity, so many seconds after the beginning; what is no finite number is left out."""
        while at_s >= self._most * self._step_s:
            self._step_s *= 2
            self._points = {name: _merged(points) for name, points in self._points.items()}
        at = int(at_s / self._step_s)
        for name, value in readings.items():
            if math.isfinite(value):
                points, (low, high) = self._points.setdefault(name, {}), self._ends.get(name, (value, value))
                total, count = points.get(at, (0.0, 0))
                points[at] = total + value, count + 1
                self._ends[name] = min(low, value), max(high, value)

    def series(self) -> Series:
        """What was collected until now."""
        length = 1 + max((at for points in self._points.values() for at in points), default=-1)
        lines = {}
        for name, points in self._points.items():
            means = (points.get(at, (0.0, 0)) for at in range(length))
            lines[name] = Line(*self._ends[name], tuple(total / count if count else None for total, count in means))
        return Series(self._step_s, self.counts_from_s, self.runs_from_s, lines) if lines else Series()


def _merged(points: Mapping[int, Bucket]) -> dict[int, Bucket]:
    found: dict[int, Bucket] = {}
    for at, (total, count) in points.items():
        before, counted = found.get(at // 2, (0.0, 0))
        found[at // 2] = before + total, counted + count
    return found


def packed(series: Series) -> bytes:
    """For the database: at most `MOST_BYTES`."""
    while True:
        made = zlib.compress(json.dumps(_as_json(series), separators=(",", ":")).encode(), 9)
        if len(made) <= MOST_BYTES or not any(line.points for line in series.lines.values()):
            return made
        series = _halved(series)


def _as_json(series: Series) -> dict[str, object]:
    lines = {name: [_rounded(line.low), _rounded(line.high), list(_coded(line))] for name, line in series.lines.items()}
    return {"form": FORM, "step_s": series.step_s, "counts_from_s": _time(series.counts_from_s),
            "runs_from_s": _time(series.runs_from_s), "lines": lines}  # fmt: skip


def _time(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _rounded(value: float) -> float:
    found = float(f"{value:.{_DIGITS}g}")
    return int(found) if found.is_integer() else found


def _coded(line: Line) -> Iterator[int | None]:
    width = line.high - line.low
    for point in line.points:
        yield None if point is None else round(_TOP * (point - line.low) / width) if width else 0


def _halved(series: Series) -> Series:
    """Two points become one; of the last one there is none left."""
    lines = {name: Line(line.low, line.high, tuple(_pairs(line.points))) for name, line in series.lines.items()}
    return Series(2 * series.step_s, series.counts_from_s, series.runs_from_s, lines)


def _pairs(points: tuple[float | None, ...]) -> Iterator[float | None]:
    for at in range(0, len(points), 2) if len(points) > 1 else ():
        known = [point for point in points[at : at + 2] if point is not None]
        yield sum(known) / len(known) if known else None


def unpacked(text: str) -> Series:
    """The series of a JSON text as `packed` made it. Raises ValueError, TypeError, KeyError for what is none."""
    content = json.loads(text, parse_constant=_refuse)
    if content["form"] != FORM:
        raise ValueError(f"unknown form {content['form']}")
    lines = {str(name): _line(*line) for name, line in content["lines"].items()}
    counts, runs = (content[name] for name in ("counts_from_s", "runs_from_s"))
    return Series(float(content["step_s"]), _moment(counts), _moment(runs), lines)


def _moment(seconds: float | None) -> float | None:
    return None if seconds is None else float(seconds)


def _line(low: float, high: float, codes: list[int | None]) -> Line:
    width = high - low
    return Line(low, high, tuple(None if code is None else _rounded(low + width * code / _TOP) for code in codes))


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")
