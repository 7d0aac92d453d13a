"""Writes the files of a report: each whole or not at all, and the log of all runs that only grows."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from ollama_sweep.core.options import Scalar
from ollama_sweep.machine import files
from ollama_sweep.machine.places import check_folder as check_folder
from ollama_sweep.results.export import csv_text
from ollama_sweep.results.groups import Group
from ollama_sweep.results.task_files import LOG_COLUMNS, LOG_NAME, Content, by_task, log_row


def save_files(contents: Sequence[Content], out: Path) -> list[Path]:
    """Write each file whole or not at all; their paths. Raises ConfigError for no folder, StorageError."""
    check_folder(out)
    paths = [place(out, content) for content in contents]
    for path, content in zip(paths, contents, strict=True):
        files.write_whole(path, content.text.encode())
    return paths


def append_logs(groups: Sequence[Group], out: Path, *, in_folders: bool = False) -> list[Path]:
    """Append a line for each model to `benchmark_log.csv` of its task; nothing is made where there is no group.

    `in_folders`: each task has its folder, also where the groups are those of one. Raises ConfigError, StorageError.
    """
    check_folder(out)
    paths = []
    for folder, members in by_task(groups).items():
        own = members[0].task if in_folders else folder
        paths.append(place(out, Content(own, LOG_NAME, "")))
        append_log(paths[-1], [log_row(group) for group in members])
    return paths


def append_log(path: Path, rows: Sequence[Sequence[Scalar]]) -> None:
    """Append lines to a log, with the header where it is new, in one write; a line that is there already is not added.

    Raises StorageError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = path.read_text("utf-8", "replace")
            known = set(text.splitlines())
            lines = [line for row in rows if (line := csv_text([row])).rstrip("\n") not in known]
            head = "" if text else csv_text([LOG_COLUMNS])
            end = "\n" if text and not text.endswith("\n") else ""
            if lines:
                _append(file, f"{end}{head}{''.join(lines)}".encode())
        finally:
            os.close(file)
    except OSError as error:
        raise files.refused(path, error) from error


def _append(file: int, data: bytes) -> None:
    """All of it or nothing: what a full disk took half of is taken back. Raises OSError."""
    size = os.fstat(file).st_size
    try:
        if os.write(file, data) < len(data):
            raise OSError("no space left")
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


def place(out: Path, content: Content) -> Path:
    """Where a file goes. Raises ConfigError where a link leads out of the folder."""
    return files.inside(out, *([content.folder] if content.folder else []), content.name)
