"""Every exception. Its class says whose fault it is; the class decides the exit code."""

from __future__ import annotations

import contextlib
import difflib
import traceback
from collections.abc import Iterable, Iterator


class SweepError(Exception):
    """Base of all errors that are shown as one line; the exit code is that of the class."""

    exit_code = 1


class ConfigError(SweepError):
    """The person's input is wrong: nothing was started, nothing was created.

    `where` is `FILE`, `FILE:LINE`, `--option` or a path such as `num_ctx.step`.
    """

    exit_code = 2

    def __init__(self, message: str, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class NothingStored(ConfigError):
    """A database that is ours to be, in which nothing was ever committed: `run` makes its tables."""


class DatabaseInUse(SweepError):
    """Another sweep holds the database, or it belongs to another program."""

    exit_code = 3


class StorageError(SweepError):
    """The disk or the database failed (full, read-only, replaced, corrupt); acknowledged cells are safe.

    `no_space` is true where it may go through once space was freed.
    """

    exit_code = 4

    def __init__(self, message: str, *, no_space: bool = False) -> None:
        super().__init__(message)
        self.no_space = no_space


class EngineUnavailable(SweepError):
    """The engine cannot be used (missing, down too long, stuck, model not installed); never blamed on a cell."""

    exit_code = 5


class EngineMissing(EngineUnavailable):
    """Waiting does not help: no program, no such model, a version that is too old."""


class EngineStuck(EngineMissing):
    """A process that cannot be ended holds the engine; nothing further may be started."""


class NotBelieved(SweepError):
    """With --strict: finished, but some cells failed or are not believed."""

    exit_code = 6


class Slower(SweepError):
    """With --fail-over: what was compared is slower beyond noise, or its memory did not hold."""

    exit_code = 7


class NotTold(SweepError):
    """With --strict: it cannot be told whether what was compared is slower."""

    exit_code = 8


class Stopped(SweepError):
    """Ended by a signal with progress saved; the exit code is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class CellFailed(Exception):
    """One cell failed; it is recorded with this status and the sweep goes on.

    `status` is a value of `cells.Status`; `reason` a short word beside it; `error` the engine's own text;
    `raw` the whole captured output, kept so that a better parser may read it later.
    """

    def __init__(self, status: str, reason: str, error: str, raw: str = "") -> None:
        super().__init__(f"{status} ({reason}): {error}")
        self.status = status
        self.reason = reason
        self.error = error
        self.raw = raw


class UnreadableValue(UserWarning):
    """Values of a database cannot be read and are left out; a warning, because all others can."""


PARSER = "parser"
_BUGS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError)


@contextlib.contextmanager
def keeping(raw: str) -> Iterator[None]:
    """A bug of ours in this block costs the cell and not what the engine said, so that it can be read again.

    Raises CellFailed (reason `parser`).
    """
    try:
        yield
    except _BUGS as error:
        raise CellFailed("error", PARSER, traceback.format_exc(), raw) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean X?` for the nearest known name, else an empty string."""
    names = sorted(known)
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f" Did you mean {found[0]}?" if found else ""
