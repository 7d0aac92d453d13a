"""Durations, sizes and counts: what engines print in, seconds, bytes and readable text out."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_GO_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_GO_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|μs|ms|h|m|s)")
_GO_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|μs|ms|h|m|s))+")


def parse_duration_s(text: str) -> float:
    """Seconds of a Go duration such as `1m2.5s` or `369.65ms`. Raises ValueError."""
    stripped = text.strip()
    if not _GO_DURATION.fullmatch(stripped):
        raise ValueError(f"not a duration: {text!r}")
    return sum(float(value) * _GO_UNITS_S[unit] for value, unit in _GO_PART.findall(stripped))


def format_duration(seconds: float) -> str:
    """Readable length of time: `0.42 s`, `59 s`, `4 min 10 s`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def format_bytes(count: float) -> str:
    """Readable size in binary units: `512 B`, `98.0 MiB`, `3.3 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_rate(tokens_per_second: float) -> str:
    """A rate with three significant digits and at least none after the point: `0.532`, `51.4`, `331`, `12345`."""
    if tokens_per_second <= 0 or not math.isfinite(tokens_per_second):
        return f"{tokens_per_second:g}"
    decimals = max(0, 2 - math.floor(math.log10(tokens_per_second)))
    return f"{tokens_per_second:.{decimals}f}"


def utc_text(now_s: float) -> str:
    """A time of day, in seconds since 1970, as it is stored: ISO 8601 in UTC."""
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds")


def local_time(now_s: float) -> datetime:
    """The same as the local time, without a zone."""
    return datetime.fromtimestamp(now_s)


def parameters_of(size: str | None) -> float | None:
    """How many parameters `134.52M`, `8.0B` are, as Ollama writes a model's size; None for what says no number."""
    found = _PARAMETERS.fullmatch(size.strip()) if size else None
    return float(found[1]) * 1000.0 ** ("KMBT".index(found[2].upper()) + 1) if found else None


_PARAMETERS = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMBTkmbt])")
