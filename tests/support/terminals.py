"""The program on a terminal of its own, and a run that waits for its gate."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
from ollama_fixture import MARK, clean_environment, until
from sweeping import Program


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, program: Program, *words: str | Path, errors_to: Path | None = None) -> None:
        self.master, slave = pty.openpty()
        self.shown = ""
        environment = {**clean_environment(), **program.environment(), MARK: program.mark, "TERM": "xterm"}
        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(errors_to.open("wb")).fileno() if errors_to else slave
            self.child = forked.child(
                [sys.executable, str(program.file), *map(str, words)], folder=program.folder, env=environment,
                stdin=slave, stdout=slave, stderr=errors, on_terminal=True,
            )  # fmt: skip
        os.close(slave)

    def read(self) -> str:
        """Everything shown so far."""
        while select.select([self.master], [], [], 0.01)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # every process has closed its side
                break
            if not data:
                break
            self.shown += data.decode("utf-8", "replace")
        return self.shown

    def press_ctrl_c(self) -> None:
        os.write(self.master, b"\x03")

    def wait(self) -> int:
        """Its exit code; the screen is read meanwhile."""
        until("the program ends", lambda: (self.read(), self.child.poll() is not None)[1])
        self.read()
        return self.child.returncode

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.master)


@pytest.fixture
def terminals(program: Program) -> Iterator[list[Terminal]]:
    """Terminals that are closed at the end; `program` ends what still runs."""
    made: list[Terminal] = []
    yield made
    for terminal in made:
        terminal.close()
        terminal.child.kill()
        terminal.child.wait()


@pytest.fixture
def gate(program: Program) -> Path:
    """The file without which no run ends."""
    file = program.folder / "gate"
    program.script(gate=str(file))
    return file


def measuring(program: Program, cells: int = 1) -> None:
    """Wait until the first run of so many cells is at the gate."""
    until("a cell is being measured", lambda: len(program.measured()) >= cells)
