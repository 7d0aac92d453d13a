"""The command line: it parses, calls and prints. Nothing is decided or computed here.

Each command is one file in `commands`, imported only when it is used.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import stat
import sys
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import click

from ollama_sweep import __version__
from ollama_sweep.cli.terminal import never_fail, warn
from ollama_sweep.core.errors import ConfigError, SweepError, UnreadableValue, nearest
from ollama_sweep.core.text import one_line, surrogate_in
from ollama_sweep.machine.places import check_working_folder
from ollama_sweep.machine.secrets import is_secret

FOLDER = Path(__file__).parent / "commands"
ORDER = ("plan", "run", "status", "watch", "serve", "logs", "stop", "pause", "continue", "service", "heatmap", "plot",
         "export", "report", "best", "explain", "compare", "models", "params", "init", "schema", "import", "verify",
         "recover", "doctor", "hosts", "scheduler", "worker", "completion")  # fmt: skip
"""As --help lists them, in the order of use; a command that is not named here comes after these."""
PROGRAM = "ollama-sweep"
_SETTINGS = ("OLLAMA_", "LLAMA_ARG_", "LLM_")
_SHORT_HELP = re.compile(r'@click\.(?:command|group)\([^()]*?short_help="([^"\n]+)"')


def _modules() -> dict[str, str]:
    """The module of each command: a file in `commands` or in a folder of it is a command of its name.

    A word of Python's has a `_` behind it (`import_`).
    """
    files = sorted(file.relative_to(FOLDER).with_suffix("") for file in FOLDER.glob("**/[!_]*.py"))
    found = {file.name.rstrip("_"): ".".join(file.parts) for file in files}
    known = [name for name in ORDER if name in found]
    return {name: found[name] for name in (*known, *sorted(found.keys() - set(known)))}


_MODULES = _modules()
COMMANDS = tuple(_MODULES)


class _LazyGroup(click.Group):
    """Knows its commands by their files, which are read for their one-line helps and imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"ollama_sweep.cli.commands.{_MODULES[cmd_name]}").command
        assert isinstance(command, click.Command)
        if ctx.resilient_parsing:  # a shell asks what it may complete
            from ollama_sweep.cli import completing

            completing.teach(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"unknown command {args[0]}. Known: {', '.join(COMMANDS)}.{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _short_help(name)) for name in COMMANDS])


def _short_help(command: str) -> str:
    """Read from its file: importing every command would make --help slow."""
    found = _SHORT_HELP.search((FOLDER / f"{_MODULES[command].replace('.', '/')}.py").read_text("utf-8"))
    return found[1] if found else ""


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Which num_ctx x num_batch should this model run with, on this machine, and can you believe the number?

    \b
    Example:
      ollama-sweep plan configs/quickstart.yaml
      ollama-sweep run  configs/quickstart.yaml
    """


def main() -> None:
    """The entry point of `ollama-sweep` and `sweep.py`: runs a command and turns what went wrong into an exit code."""
    _replace_closed()
    sys.excepthook = _bug
    never_fail(sys.stdout)
    never_fail(sys.stderr)
    with warnings.catch_warnings():
        _show_unreadable_values()
        code = _run()
    _drop_unwritten()
    sys.exit(code)


def _run() -> int:
    try:
        _check_surroundings()
        code = cli(standalone_mode=False, prog_name=PROGRAM)
    except SweepError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except SystemExit:
        return 0  # click's own answer to a closed pipe
    except click.ClickException as error:
        return _usage(error)
    except (click.Abort, KeyboardInterrupt):
        return _fail("stopped", 130)
    except OSError as error:
        return _output_error(error)
    except MemoryError:
        return _fail("no memory left; everything measured is saved. Go on with the same command", 1)
    return code if isinstance(code, int) else 0


def _check_surroundings() -> None:
    """Refuse words and settings in other letters than UTF-8, and a working folder that is gone, before anything else.

    Raises ConfigError, StorageError.
    """
    if not {"-h", "--help", "--version"} & set(sys.argv):
        check_working_folder()
    for number, word in enumerate(sys.argv[1:], 1):
        if surrogate_in(word):
            raise ConfigError(f"is not UTF-8: {_bytes_of(word)}", f"argument {number}")
    for name, value in os.environ.items():
        if name.startswith(_SETTINGS) and surrogate_in(value):
            raise ConfigError("is not UTF-8" if is_secret(name, value) else f"is not UTF-8: {_bytes_of(value)}", name)


def _bytes_of(word: str) -> str:
    return one_line(os.fsencode(word).decode("utf-8", "backslashreplace"))


def _bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback may quote text of others, too."""
    with contextlib.suppress(OSError, ValueError):
        for line in "".join(traceback.format_exception(kind, error, trace)).splitlines():
            warn(line)


def _show_unreadable_values() -> None:
    """What cannot be read of a database is one line, and said once."""
    warnings.simplefilter("always", UnreadableValue)
    said, others = set[str](), warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if not issubclass(category, UnreadableValue):
            others(message, category, *where)
        elif str(message) not in said:
            said.add(str(message))
            _complain(f"warning: {message}")

    warnings.showwarning = show  # type: ignore[assignment]


def _replace_closed() -> None:
    """Where a shell has closed stdout or stderr (`>&-`), nobody reads them; no file of ours may get their numbers."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the end


def _drop_unwritten() -> None:
    """What stdout and stderr could not write by now (a closed terminal) must not turn the exit code into 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError, AttributeError):
            setattr(sys, name, None)


def _fail(message: str, code: int) -> int:
    """One line; a bug of this program (code 1) may have a traceback below it."""
    for line in f"error: {message}".split("\n") if code == 1 else [f"error: {message}"]:
        _complain(line)
    return code


def _complain(line: str) -> None:
    """A line on stderr; where that is gone there is nobody left to tell."""
    with contextlib.suppress(OSError):
        warn(line)


def _usage(error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        _complain(context.get_usage())
    _fail(" ".join(error.format_message().split()), 2)  # click lists choices below each other
    _complain(f"try: {context.command_path if context else 'ollama-sweep'} --help")
    return 2


def _output_error(error: OSError) -> int:
    """A closed pipe or terminal ends quietly; a full disk under stdout is storage; anything else is a bug."""
    if error.errno == errno.EPIPE or (error.errno == errno.EIO and _is_device(sys.stdout)):
        sys.stdout = None
        return 0
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        sys.stdout = None
        return _fail(f"no space left where the output goes ({error.strerror})", 4)
    from ollama_sweep.machine.files import too_many_files

    if text := too_many_files(error):
        return _fail(text, 4)
    _bug(type(error), error, error.__traceback__)
    return 1


def _is_device(stream: TextIO) -> bool:
    """A terminal is one, also after it was closed and no longer says so itself."""
    try:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
