"""One line of `doctor`: what was looked at, how it stands, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ollama_sweep.core.errors import SweepError


class State(StrEnum):
    """How something stands: as it should be, worth knowing, or in the way of a sweep."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """`hint` says what to do; `exit_code` is that of a command that would stop here."""

    check: str
    state: State
    text: str
    hint: str = ""
    exit_code: int = 0


def ok(check: str, text: str, hint: str = "") -> Finding:
    """As it should be."""
    return Finding(check, State.OK, text, hint)


def warning(check: str, text: str, hint: str = "") -> Finding:
    """A sweep runs, but somebody should know this."""
    return Finding(check, State.WARNING, text, hint)


def bad(check: str, text: str, hint: str = "", *, exit_code: int = 5) -> Finding:
    """A sweep would stop here."""
    return Finding(check, State.BAD, text, hint, exit_code)


def of_error(check: str, error: SweepError, hint: str = "") -> Finding:
    """What a command would end with."""
    return bad(check, str(error), hint, exit_code=error.exit_code)
