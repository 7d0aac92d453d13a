"""Paths on the command line, looked at before a command does anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.machine import places
from ollama_sweep.store.beside import check_database

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _Type = click.ParamType[Path]
else:
    _Type = click.ParamType


class _Path(_Type):
    """A path that a check has let pass; what it raises is shown as it is."""

    name = "path"

    def __init__(self, check: Callable[[Path], object], completed: str = "file") -> None:
        self._check, self._completed = check, completed

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Raises ConfigError, StorageError."""
        path = Path(str(value))
        self._check(path)
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Left to the shell, which knows the files."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=self._completed)]


DATABASE = _Path(check_database)
SOURCE = _Path(places.check_source)
"""A file that is read; that it is there is said by who reads it."""
OUTPUT = _Path(places.check_output)
FOLDER = _Path(places.check_folder, completed="dir")
LATER = _Path(lambda path: None)
"""What the command looks at by itself, because it may be a file or a folder."""
TRIED = _Path(lambda path: None, completed="dir")
"""A folder that is tried by a write before anything is measured, which says what is wrong with it."""
CONFIG = _Path(places.look)
"""A sweep file, or the name of a sweep."""
