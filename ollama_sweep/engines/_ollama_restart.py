"""The person's own way to bring an Ollama server back: a command that is started, waited for, and never ended by us.

It may itself be the server (`ollama serve`), so it gets a session of its own and outlives the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ollama_sweep import process
from ollama_sweep.errors import EngineMissing

RESTART_S = 120.0
POLL_S = 0.2


def restart(words: Sequence[str], *, env: Mapping[str, str], log: Path, is_back: Callable[[], bool]) -> str:
    """Start the command and wait until the server is back; why it is not, in words, or "" where it is.

    A command that ends with 0 may have left the server to come up by itself, so it is waited for all the same.
    Raises EngineMissing where it cannot be run.
    """
    log.unlink(missing_ok=True)
    try:
        command = process.spawn_detached(words, env=env, log=log, kept_files=())
    except OSError as error:
        raise EngineMissing(f"restart_command {words[0]} cannot be run: {error.strerror}") from None
    try:
        return _wait(command, log, is_back)
    finally:
        command.leave()


def _wait(command: process.Service, log: Path, is_back: Callable[[], bool]) -> str:
    deadline = time.monotonic() + RESTART_S
    while not is_back():
        if not command.is_alive and (code := command.wait()) != 0:
            return f"restart_command ended with {code}: {last_line(log)}"
        if time.monotonic() > deadline:
            return f"restart_command brought no server back in {RESTART_S:g} s: {last_line(log)}"
        time.sleep(POLL_S)
    return ""


def last_line(log: Path) -> str:
    """The last thing that a program has said."""
    lines = log.read_text("utf-8", "replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
