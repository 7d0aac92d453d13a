"""The person's own way to bring an Ollama server back: a command that is started, waited for, and never ended by us.

It may itself be the server (`ollama serve`), so it gets a session of its own and outlives the sweep.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ollama_sweep.core.errors import EngineMissing
from ollama_sweep.core.options import is_server_setting
from ollama_sweep.machine import process
from ollama_sweep.machine.files import cache_folder

RESTART_S = 120.0
POLL_S = 0.2


def restart(words: Sequence[str], *, env: Mapping[str, str], log: Path, is_back: Callable[[], bool]) -> str:
    """Start the command and wait until the server is back; why it is not, in words, or "" where it is.

    A command that ends with 0 may have left the server to come up by itself, so it is waited for all the same.
    Raises EngineMissing where it cannot be run.
    """
    log.unlink(missing_ok=True)
    try:
        command = process.spawn_detached(words, env=env, log=log, kept_files=(), needs=is_for_a_server)
    except OSError as error:
        raise EngineMissing(f"restart_command {words[0]} cannot be run: {error.strerror}") from None
    try:
        return _wait(command, log, is_back)
    finally:
        command.leave()


def is_for_a_server(name: str) -> bool:
    """The person's own server may want a secret of this name; what else is secret here is not for it."""
    return is_server_setting(name) and not name.startswith("OLLAMA_SWEEP_")


def is_for_own_server(name: str) -> bool:
    """The same for the sweep's own server, which asks its llama-server without a key, and nobody else."""
    return is_for_a_server(name) and not name.endswith("API_KEY")


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


HOW_TO_GET = "Install it from ollama.com, or set --ollama PATH"


def private_binaries() -> list[Path]:
    """The Ollamas that `make ollama` has built, newest version first."""
    built = [path for path in (cache_folder() / "ollama").glob("*/bin/ollama") if os.access(path, os.X_OK)]
    return sorted(built, key=lambda path: version_tuple(path.parent.parent.name), reverse=True)


def version_tuple(version: str) -> tuple[int, ...]:
    """`0.34.0-rc1` as (0, 34, 0), for comparisons."""
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version)[:3])


def installed_binary(wanted: str | None) -> Path | None:
    """The `ollama` that the person named or has in PATH. Raises EngineUnavailable for a wrong --ollama."""
    if wanted:
        path = Path(wanted).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise EngineMissing(f"--ollama {wanted} is not a program. {HOW_TO_GET}")
        return path.absolute()
    found = shutil.which("ollama")
    return Path(found) if found else None


def any_binary(wanted: str | None) -> Path | None:
    """The installed `ollama`, else the newest private one, else None."""
    return installed_binary(wanted) or next(iter(private_binaries()), None)
