"""When a sweep may run: quiet hours in every form, mains power, an idle GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.machine.conditions import (
    DAY_MINUTES,
    WEEK_MINUTES,
    Conditions,
    IdleGpu,
    QuietHours,
    Wait,
    gpu_shares,
    parse_quiet_hours,
    when_may_i_run,
)

MONDAY = datetime(2026, 6, 1)
"""A Monday, 00:00, far from any change of the clock."""


def at(day: int, clock: str) -> datetime:
    """A time of that week; 0 is Monday."""
    hours, minutes = clock.split(":")
    return MONDAY + timedelta(days=day, hours=int(hours), minutes=int(minutes))


@pytest.mark.parametrize(
    ("text", "day", "clock", "until"),
    [
        ("09:00-18:00", 0, "08:59", None),
        ("09:00-18:00", 0, "09:00", (0, "18:00")),
        ("09:00-18:00", 6, "17:59", (6, "18:00")),
        ("09:00-18:00", 0, "18:00", None),
        ("9:00-18:00", 2, "12:00", (2, "18:00")),
        ("22:00-07:00", 0, "23:30", (1, "07:00")),
        ("22:00-07:00", 0, "06:59", (0, "07:00")),
        ("22:00-07:00", 6, "23:00", (7, "07:00")),
        ("22:00-07:00", 0, "12:00", None),
        ("18:00-24:00", 0, "23:59", (1, "00:00")),
        ("09:00-12:00, 13:00-18:00", 0, "12:30", None),
        ("09:00-12:00, 13:00-18:00", 0, "13:30", (0, "18:00")),
        ("09:00-12:00, 11:00-18:00", 0, "10:00", (0, "18:00")),
        ("09:00-12:00, 12:00-18:00", 0, "10:00", (0, "18:00")),
        ("mon-fri 09:00-18:00", 4, "10:00", (4, "18:00")),
        ("mon-fri 09:00-18:00", 5, "10:00", None),
        ("Mon–Fri 09:00–18:00", 0, "10:00", (0, "18:00")),
        ("sat-mon 00:00-24:00", 5, "10:00", (8, "00:00")),
        ("sat-mon 00:00-24:00", 0, "10:00", (1, "00:00")),
        ("sat-mon 00:00-24:00", 1, "10:00", None),
        ("fri 22:00-07:00", 5, "03:00", (5, "07:00")),
        ("fri 22:00-07:00", 4, "03:00", None),
        ("sun 22:00-07:00", 0, "03:00", (0, "07:00")),
    ],
)
def test_quiet_hours_hold_until_their_end(text: str, day: int, clock: str, until: tuple[int, str] | None) -> None:
    found = parse_quiet_hours(text).until(at(day, clock) + timedelta(seconds=30))
    assert found == (at(*until) if until else None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", '"" is not a time like 09:00-18:00'),
        ("9-17", '"9-17" is not a time like 09:00-18:00'),
        ("09:00", "is not a time like"),
        ("09:00-18:00,", '"" is not a time like'),
        ("09:00-18:00 13:00-14:00", "is not a time like"),
        ("25:00-26:00", '"25:00" is not a time of day (00:00 to 24:00)'),
        ("09:60-18:00", '"09:60" is not a time of day'),
        ("09:00-09:00", "begins and ends at the same time; for all day write 00:00-24:00"),
        ("00:00-24:00", "covers the whole week, so nothing would ever run"),
        ("08:00-20:00, 19:00-09:00", "covers the whole week"),
        ("mon-fry 09:00-10:00", '"fry" is not a day; days are mon, tue, wed, thu, fri, sat, sun'),
    ],
)
def test_impossible_quiet_hours_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_quiet_hours(text)


@given(st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES), st.integers(0, WEEK_MINUTES - 1))
def test_the_end_of_quiet_hours_is_the_first_minute_in_which_a_cell_may_start(begin: int, end: int, now: int) -> None:
    if begin == end % DAY_MINUTES:
        return
    hours = parse_quiet_hours(f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}")
    moment = MONDAY + timedelta(minutes=now)
    until = hours.until(moment)
    minute = now % DAY_MINUTES
    is_quiet = begin <= minute < end if begin < end else minute >= begin or minute < end
    assert (until is not None) == is_quiet
    if until is not None:
        assert moment < until <= moment + timedelta(days=1)
        assert hours.until(until) is None
        assert hours.until(until - timedelta(minutes=1)) == until


def ask(conditions: Conditions, *, battery: bool = False, busy: bool = False, now: datetime = MONDAY) -> Wait | None:
    return when_may_i_run(now, conditions, lambda: battery, lambda: busy)


def test_without_conditions_a_cell_may_always_start() -> None:
    assert ask(Conditions(), battery=True, busy=True) is None


def test_the_reason_says_until_when() -> None:
    conditions = Conditions(parse_quiet_hours("09:00-18:00, sat 00:00-24:00"))
    assert ask(conditions, now=at(0, "10:00")) == Wait("quiet hours until 18:00", at(0, "18:00"))
    saturday = ask(conditions, now=at(5, "10:00"))
    assert saturday is not None
    assert saturday.reason == "quiet hours until Sun 00:00"


def test_battery_and_busy_gpu_are_waited_for_only_where_asked() -> None:
    on_ac, idle = Conditions(only_on_ac=True), Conditions(wait_for_idle_gpu=True)
    assert ask(on_ac, busy=True) is None
    assert ask(idle, battery=True) is None
    waiting = [ask(on_ac, battery=True), ask(idle, busy=True)]
    assert [wait.reason for wait in waiting if wait] == [
        "the machine runs on its battery (only_on_ac)",
        "another program uses the GPU (wait_for_idle_gpu)",
    ]


def test_a_probe_is_not_asked_where_it_does_not_matter() -> None:
    def never() -> bool:
        raise AssertionError("asked")

    assert when_may_i_run(MONDAY, Conditions(), never, never) is None
    quiet = Conditions(parse_quiet_hours("00:00-01:00"), only_on_ac=True, wait_for_idle_gpu=True)
    assert when_may_i_run(MONDAY, quiet, never, never) is not None


def gpu(samples: Iterable[list[float]]) -> IdleGpu:
    rest = iter(samples)
    return IdleGpu(lambda: next(rest), lambda seconds: None)


@pytest.mark.parametrize(
    ("samples", "is_busy"),
    [
        ([[0.0], [0.02]], False),
        ([[0.9], [0.0], [0.0]], False),  # what the sweep itself has just done fades
        ([[0.0], [0.9], [0.0]], True),  # a training job between two batches
        ([[0.9], [0.9], [0.9]], True),
        ([[0.0, 0.0], [0.0, 0.5], [0.0, 0.5]], True),  # any of several GPUs
    ],
)
def test_a_gpu_is_idle_when_two_samples_in_a_row_are(samples: list[list[float]], is_busy: bool) -> None:
    assert gpu(samples).is_busy() is is_busy


def test_a_gpu_that_does_not_answer_is_not_waited_for_nor_asked_again() -> None:
    probe = gpu([[]])
    assert (probe.is_busy(), probe.can_tell, probe.is_busy()) == (False, False, False)


def test_the_kernel_says_how_busy_an_amd_gpu_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, text in (("card0", "37\n"), ("card1", "nothing\n"), ("card1-DP-1", "")):
        (tmp_path / name / "device").mkdir(parents=True)
        (tmp_path / name / "device/gpu_busy_percent").write_text(text, "ascii")
    assert gpu_shares(tmp_path) == [0.37]


def test_no_quiet_hours_are_no_hours() -> None:
    assert QuietHours().until(MONDAY) is None
