"""What a killed session left of its processes: the same for every engine."""

from __future__ import annotations

import shutil
from pathlib import Path

from ollama_sweep import process
from ollama_sweep.engine import Leftover
from ollama_sweep.errors import EngineUnavailable

OWN_FOLDERS = "ollama-sweep-"


def end_process(leftover: Leftover) -> str | None:
    """End a recorded process with its children and remove its folder; a line that says so, None where it was gone.

    Raises EngineUnavailable for anything else (a model that another engine made), so that it stays recorded.
    """
    if leftover.kind != "process":
        raise EngineUnavailable("another engine made it; the next run with that engine removes it")
    ended = process.end_by_token(leftover.name)
    folder = Path(leftover.details.get("folder", ""))
    if folder.name.startswith(OWN_FOLDERS):
        shutil.rmtree(folder, ignore_errors=True)
    pids = ", ".join(f"pid {pid}" for pid in ended)
    return f"Ended what the previous session had left running ({pids})" if ended else None
