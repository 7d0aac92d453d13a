"""`watch` on a terminal of its own, and what it shows there."""

from __future__ import annotations

import fcntl
import re
import struct
import termios

from sweeping import Program
from terminals import Terminal

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
FRAME = "\x1b[H"


def last_frame(terminal: Terminal) -> list[str]:
    """The lines of the newest frame that is surely whole, because another one follows; without colours."""
    frames = [ESCAPES.sub("", frame).rstrip() for frame in terminal.read().split(FRAME)[1:]]
    whole = [frame for frame in frames[:-1] if frame]
    return [line.rstrip() for line in whole[-1].split("\r\n")] if whole else []


def shows(terminal: Terminal, text: str) -> bool:
    return any(text in line for line in last_frame(terminal))


def resize(terminal: Terminal, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def watching(program: Program, terminals: list[Terminal], *words: str, size: tuple[int, int] = (80, 24)) -> Terminal:
    terminal = Terminal(program, "watch", *words)
    resize(terminal, *size)
    terminals.append(terminal)
    return terminal
