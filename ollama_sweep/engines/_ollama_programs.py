"""The `ollama` programs of this machine: named, in PATH, or built by `make ollama`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ollama_sweep.errors import EngineMissing
from ollama_sweep.model_files import cache_folder

HOW_TO_GET = "Install it from ollama.com, or set --ollama PATH"


def private_binaries() -> list[Path]:
    """The Ollamas that `make ollama` has built, newest version first."""
    built = [path for path in (cache_folder() / "ollama").glob("*/bin/ollama") if os.access(path, os.X_OK)]
    return sorted(built, key=lambda path: version_tuple(path.parent.parent.name), reverse=True)


def version_tuple(version: str) -> tuple[int, ...]:
    """`0.34.0-rc1` as (0, 34, 0), for comparisons."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


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
