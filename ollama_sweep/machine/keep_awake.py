"""Keeps a computer from going to sleep by itself while a sweep runs: systemd-inhibit on Linux, caffeinate on macOS."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ollama_sweep.machine import process

SETTLE_S = 1.0
"""A helper that may not do its work says so and ends within this time."""


@contextlib.contextmanager
def kept_awake(say: Callable[[str], None]) -> Iterator[None]:
    """The computer does not go to sleep by itself while the block runs; one warning where that cannot be had."""
    with tempfile.TemporaryDirectory(prefix="ollama-sweep-") as folder:
        helper = _start(Path(folder) / "output", say)
        try:
            yield
        finally:
            if helper is not None:
                helper.end()


def _start(log: Path, say: Callable[[str], None]) -> process.Service | None:
    words = _words()
    if words is None:
        say("Warning: neither systemd-inhibit nor caffeinate is here, so the computer may go to sleep (--keep-awake)")
        return None
    try:
        helper = process.spawn_service(words, env=os.environ, log=log)
    except OSError as error:
        say(f"Warning: {words[0]} cannot be started ({error.strerror}), so the computer may go to sleep")
        return None
    until = time.monotonic() + SETTLE_S
    while helper.is_alive and time.monotonic() < until:
        time.sleep(0.02)
    if helper.is_alive:
        return helper
    said = " ".join(log.read_text("utf-8", "replace").split())[:200]
    say(f"Warning: {Path(words[0]).name} did not work, so the computer may go to sleep: {said or 'it said nothing'}")
    return None


def _words() -> list[str] | None:
    """The command that keeps the computer awake for as long as it runs."""
    caffeinate = shutil.which("caffeinate")
    if caffeinate:
        return [caffeinate, "-i", "-w", str(os.getpid())]
    inhibit = shutil.which("systemd-inhibit")
    if inhibit:
        return [inhibit, "--what=idle:sleep", "--who=ollama-sweep", "--why=A sweep is running", "--mode=block",
                "sleep", "infinity"]  # fmt: skip
    return None
