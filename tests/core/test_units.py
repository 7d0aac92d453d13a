"""Durations as Go prints them, and figures as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ollama_sweep.core.units import format_bytes, format_duration, format_rate, parse_duration_s


def go_duration(nanoseconds: int) -> str:
    """What Go's Duration.String() prints."""
    if nanoseconds < 1000:
        return f"{nanoseconds}ns" if nanoseconds else "0s"
    for unit, size in (("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < size * 1000:
            return f"{_decimal(nanoseconds, size)}{unit}"
    seconds = f"{_decimal(nanoseconds % (60 * 10**9), 10**9)}s"
    minutes, hours = nanoseconds // (60 * 10**9) % 60, nanoseconds // (3600 * 10**9)
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, size: int) -> str:
    digits = str(value % size).zfill(len(str(size)) - 1).rstrip("0")
    return f"{value // size}.{digits}" if digits else str(value // size)


@given(st.integers(0, 10**15))
@example(62_500_000_000)
@example(999)
@example(1_000_000)
def test_every_duration_that_go_prints_is_read(nanoseconds: int) -> None:
    assert parse_duration_s(go_duration(nanoseconds)) == pytest.approx(nanoseconds / 1e9, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m2.5s", 62.5),
        ("369.65ms", 0.36965),
        ("2.5µs", 2.5e-6),
        ("2.5μs", 2.5e-6),
        ("2.5us", 2.5e-6),
        ("100ns", 1e-7),
        ("1h0m0.5s", 3600.5),
        (" 10m \n", 600.0),
        ("0s", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "-5s", "5 s", "5s later", "s", "1.s", ".5s", "1e3s", "1m 2s", "5S", "5d", "nan", "inf"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.424, "0.42 s"),
        (9.99, "9.99 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (250, "4 min 10 s"),
        (3599.6, "1 h 0 min"),
        (11_100, "3 h 5 min"),
        (86_400, "1 d 0 h"),
        (187_200, "2 d 4 h"),
    ],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1024, "1.0 KiB"),
        (102_760_448, "98.0 MiB"),
        (3_543_348_019, "3.3 GiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.5321, "0.532"), (51.44, "51.4"), (331.4, "331"), (12345.4, "12345"), (0.0, "0"), (math.inf, "inf")],
)
def test_rates(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@given(st.floats(1e-6, 1e9))
def test_a_shown_rate_is_within_half_a_percent(rate: float) -> None:
    assert float(format_rate(rate)) == pytest.approx(rate, rel=0.005)
