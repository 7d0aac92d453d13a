"""What a shell completes: names of sweeps, metrics, dimensions, keys, engines and plots, by the name of a parameter.

A new command needs nothing for it. Only a shell that asks pays for it; what cannot be read is no name, and a name that
would mean something else to a shell is not offered.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import paths
from ollama_sweep.core.errors import SweepError
from ollama_sweep.store.beside import DEFAULT_DB

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ollama_sweep.store.reader import Reader

    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType

SHELLS = ("bash", "zsh", "fish")


def _sweeps(context: click.Context) -> Iterable[str]:
    return _read(context, lambda reader: [row.name for row in reader.sweeps()])


def _dimensions(context: click.Context) -> Iterable[str]:
    found = _read(context, lambda reader: [name for row in reader.sweeps() for name in row.dimensions])
    return dict.fromkeys(("num_ctx", "num_batch", *found))


def _read(context: click.Context, look: Callable[[Reader], list[str]]) -> list[str]:
    """What a database says; nothing where there is none, or one that cannot be read."""
    import warnings

    from ollama_sweep.store.reader import Reader

    db = context.params.get("db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader = Reader.if_there(db if isinstance(db, Path) else Path(DEFAULT_DB))
            if reader is None:
                return []
            with reader:
                return look(reader)
        except (SweepError, OSError):
            return []


def _metrics(_context: click.Context) -> Iterable[str]:
    from ollama_sweep.core import metrics

    return metrics.named()


def _keys(_context: click.Context) -> Iterable[str]:
    from ollama_sweep.plan.keys import KEYS

    return (f"{key.name}=" for key in KEYS)


def _engines(_context: click.Context) -> Iterable[str]:
    from ollama_sweep import engines

    return (engines.AUTO, *engines.known())


def _plots(_context: click.Context) -> Iterable[str]:
    from ollama_sweep.results import plots

    return ("all", *plots.known())


@dataclass(frozen=True)
class _Words:
    """Which words a parameter may have; `or_file`: also the path of a file."""

    of: Callable[[click.Context], Iterable[str]]
    or_file: bool = False


_SWEEP = _Words(_sweeps, or_file=True)
_BY_NAME: Mapping[str, _Words] = {
    **dict.fromkeys(("config", "configs", "a", "b", "sweep"), _SWEEP),
    "metric": _Words(_metrics),
    **dict.fromkeys(("x", "y"), _Words(_dimensions)),
    "settings": _Words(_keys),
    "engine": _Words(_engines),
    "plot name": _Words(_plots),
    "check what": _Words(lambda context: (), or_file=True),
}
"""By the name of a parameter; with that of its command in front where the name alone says too little."""


class _Completed(_Type):
    """The type of a parameter, with the words that a shell may complete."""

    def __init__(self, own: Any, words: _Words) -> None:
        self._own, self._words = own, words
        self.name = own.name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return self._own.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        words = [word for word in self._words.of(ctx) if word.startswith(incomplete) and shlex.quote(word) == word]
        found = [CompletionItem(word) for word in words]
        # bash throws away what stands before a file, and looks for files only where no word is left.
        return [CompletionItem(incomplete, type="file"), *found] if self._words.or_file else found


def teach(command: click.Command) -> None:
    """Let the parameters of a command know their words, and those of the commands in it."""
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        teach(inner)
    for parameter in command.params:
        words = _BY_NAME.get(f"{command.name} {parameter.name}") or _BY_NAME.get(parameter.name or "")
        if words and parameter.type in (click.STRING, paths.CONFIG):
            parameter.type = _Completed(parameter.type, words)


def script(shell: str, command: click.Command, program: str) -> str:
    """What a shell must read to complete the words of a program."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, shell
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    one = made(command, {}, program, variable)
    # click's own for fish cuts what a command is for at its first comma.
    return one.source_template.replace('(string split "," ', '(string split -m 1 "," ') % one.source_vars()
