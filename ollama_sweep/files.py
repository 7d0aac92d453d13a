"""Files written whole or not at all, and names that are safe on every disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ollama_sweep.errors import ConfigError, StorageError

Writer = Callable[[BinaryIO], object]
MAX_NAME_BYTES = 100
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_TEMPORARY = re.compile(r"\.ollama-sweep\.(\d+)-[0-9a-f]{8}\.tmp")


def write_whole(path: Path, content: bytes | Writer) -> None:
    """Write a file so that at every moment the old one or the new one is there, whole.

    The content goes to a temporary file in the same folder, to the disk, and then takes the name. `content` is the
    bytes, or a function that writes them. Raises StorageError where the disk refuses; the old file is then unchanged.
    """
    try:
        if _is_device(path):
            with path.open("wb") as device:
                content(device) if callable(content) else device.write(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent)
        temporary = path.parent / f".ollama-sweep.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            _write_through(temporary, content)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


def _is_device(path: Path) -> bool:
    """A device or a pipe (`-o /dev/stdout`) is written to, never replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def clear_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were ended while they wrote."""
    for leftover in folder.glob(".ollama-sweep.*.tmp"):
        owner = _TEMPORARY.fullmatch(leftover.name)
        if owner and not _is_alive(int(owner.group(1))):
            leftover.unlink(missing_ok=True)


def too_many_files(error: Exception) -> str:
    """Words for an error of a process that may open no further file, with its limit; "" for any other error."""
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        return ""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"too many open files (the limit is {limit}). Raise it, for example: ulimit -n 4096"


def inside(folder: Path, *names: str) -> Path:
    """The path of generated names in a folder, made safe. Raises ConfigError where a link leads out of the folder.

    The folder itself may lie anywhere: the person chose it.
    """
    path = folder.joinpath(*(safe_name(name) for name in names))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"would be written outside {folder}", str(path))
    return path


def safe_name(text: str, *, exact: bool = True) -> str:
    """A file name for any text: `CON`, `a/b`, 300 characters.

    A good name stays as it is. Another is changed, and with `exact` ends in a digest of the text, so that two texts
    never share a name.
    """
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in unicodedata.normalize("NFC", text))
    kept = _cut(kept.strip(".-") or "unnamed", MAX_NAME_BYTES)
    if _RESERVED.fullmatch(kept):
        kept = f"_{kept}"
    if kept == text or (not exact and len(text.encode()) <= MAX_NAME_BYTES):
        return kept
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_cut(kept, MAX_NAME_BYTES - 9)}-{digest}"


def _cut(text: str, size: int) -> str:
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def _write_through(temporary: Path, content: bytes | Writer) -> None:
    with open(temporary, "xb") as stream:
        if callable(content):
            content(stream)
        else:
            stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the new name itself durable, on systems where a folder can be opened."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _is_alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


def _refused(path: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{path}: no space left; the old file is unchanged")
    return StorageError(f"{path}: cannot be written ({error.strerror or error})")
