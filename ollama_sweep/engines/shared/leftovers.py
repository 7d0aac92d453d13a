"""What a killed session left of its processes: the same for every engine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ollama_sweep.core.errors import EngineUnavailable, SweepError
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.machine import process

OWN_FOLDERS = "ollama-sweep-"


class Clearing(Protocol):
    """What of an engine is needed here."""

    def clear(self, leftover: Leftover) -> str | None: ...


_PLAIN = re.compile(r"[A-Za-z][\w.-]*")


def cleared(
    engine: Clearing, leftovers: Iterable[Leftover], settle: Callable[[int], None], whose: str
) -> Iterator[str]:
    """Remove each, and settle what is gone; a line for each that was there, and for each that stays written down.

    `whose`: `the previous session`.
    """
    for leftover in leftovers:
        try:
            said = engine.clear(leftover)
        except SweepError as error:
            yield f"{leftover.name} of {whose} could not be removed: {error}"
            continue
        settle(leftover.number)
        if said:
            yield said


def end_process(leftover: Leftover) -> str | None:
    """End a recorded process with its children and remove its folder; a line that says so, None where it was gone.

    Raises EngineUnavailable for anything else (a model that another engine made), so that it stays recorded.
    """
    if leftover.kind != "process":
        raise EngineUnavailable("another engine made it; the next run with that engine removes it")
    ended = process.end_by_token(leftover.name)
    folder = Path(leftover.details.get("folder", ""))
    if folder.name.startswith(OWN_FOLDERS):
        shutil.rmtree(folder, ignore_errors=True)
    what = ", ".join(f"{_name(words)} (pid {pid})" for pid, words in ended.items())
    return f"Ended a left-over {what} of the previous session" if ended else None


def _name(words: Sequence[str]) -> str:
    """The program, or the script that it runs, with its first plain word: `ollama run`."""
    program, *rest = words
    if rest and Path(rest[0]).is_absolute():
        program, *rest = rest
    first = next((word for word in rest if not word.startswith("-")), "")
    return f"{Path(program).name} {first}" if _PLAIN.fullmatch(first) else Path(program).name
