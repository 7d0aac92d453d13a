"""What stdout and stderr show. Every word of a command goes through here, so that no text of others steers a terminal.

Whether a stream is a terminal, and what it can show: plain ASCII signs where its encoding has no others.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

import click

from ollama_sweep.core.text import as_json, harmless_lines, whole_line
from ollama_sweep.machine.secrets import masked

if TYPE_CHECKING:
    from rich.console import Console

PLAIN = str.maketrans({"✓": "+", "✗": "x", "…": "...", "–": "-", "×": "x", "★": "*"})
_HANDLER = "ollama_sweep.plain"


def can_draw(stream: TextIO) -> bool:
    """A terminal on which a line can be drawn anew. A dumb one gets what a file gets."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def has_colours() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb")


def console(stream: TextIO) -> Console:
    """rich on a terminal. Text of other people goes in as `Text`, which it never interprets."""
    from rich.console import Console

    return Console(
        file=stream,
        force_terminal=True,
        force_interactive=True,
        force_jupyter=False,
        color_system="256" if has_colours() else None,
    )


def say(line: object = "", *, err: bool = False, head: str = "", nl: bool = True) -> None:
    """One line on stdout or stderr. `head` is text of our own in front of it, which may have colours."""
    click.echo(f"{head}{whole_line(masked(str(line)))}", nl=nl, err=err)


def warn(line: object) -> None:
    """One line on stderr."""
    say(line, err=True)


def say_lines(text: str) -> None:
    """Several lines on stdout, such as those of a file."""
    click.echo(harmless_lines(text), nl=not text.endswith("\n"))


def say_exactly(text: str) -> None:
    """A text for a file or another program on stdout, to the last sign as it is; on a terminal it is harmless."""
    click.echo(harmless_lines(text) if sys.stdout.isatty() else text, nl=False)


def say_json(value: object, *, indent: int | None = None) -> None:
    """A value for machines on stdout."""
    click.echo(as_json(value, indent=indent))


def printable(line: str, stream: TextIO) -> str:
    """A line, harmless, in what the stream can show."""
    text = whole_line(masked(line))
    encoding = stream.encoding or "ascii"
    if encoding.lower().replace("-", "") in ("utf8", "utf8sig"):
        return text
    return text.translate(PLAIN).encode(encoding, "replace").decode(encoding)


def never_fail(stream: TextIO) -> None:
    """Let a stream write a plain sign where its encoding lacks one, instead of raising UnicodeEncodeError."""
    codecs.register_error(_HANDLER, _plain)
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "replace").decode("ascii"), error.end
