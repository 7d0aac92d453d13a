"""What lies where a person wants something read or written, looked at before anything is made.

A name that no file can have, and a device, a pipe or a folder in the place of a file, are the person's mistake. A link
that leads to itself, a folder that may not be entered, a working folder that was deleted are the storage's.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.core.text import one_line

LONGEST_NAME = 255
"""Bytes of a file's name, on every usual file system."""
STDOUT = frozenset({"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe",
          stat.S_IFSOCK: "a socket"}  # fmt: skip
_LOOPS = "a symbolic link in it leads to itself"


def check_working_folder() -> None:
    """Raises StorageError where the working folder was deleted."""
    try:
        os.getcwd()
    except OSError as error:
        raise StorageError(f"the working folder cannot be used ({error.strerror}): go into another one") from None


def look(path: Path, *, beside: str = "") -> os.stat_result | None:
    """What lies at a path, links followed; None where nothing does. `beside` is what must fit behind its name.

    Raises ConfigError for a name that no file can have, StorageError where it cannot be looked at.
    """
    if "\0" in str(path):
        raise ConfigError("no name can hold the character U+0000", one_line(str(path)))
    longest = max((len(os.fsencode(part)) for part in path.parts[:-1]), default=0)
    longest = max(longest, len(os.fsencode(path.name)) + len(beside))
    if longest > LONGEST_NAME:
        raise ConfigError(f"the name is too long (at most {LONGEST_NAME - len(beside)} bytes)", one_line(str(path)))
    if not path.is_absolute():
        check_working_folder()
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError("the path is too long", one_line(str(path))) from None
        why = _LOOPS if error.errno == errno.ELOOP else error.strerror
        raise StorageError(f"{path}: cannot be reached ({why})") from None


def kind(found: os.stat_result) -> str:
    """`a folder`, `a device`, `a pipe` or `a socket`; "" for a file."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "")


def check_source(path: Path) -> None:
    """A file to be read, where there is one. Raises ConfigError, StorageError."""
    found = look(path)
    if found and kind(found):
        raise ConfigError(f"is {kind(found)}, not a file", str(path))
    if found and not os.access(path, os.R_OK):
        raise StorageError(f"{path}: cannot be read (no permission)")


def check_output(path: Path) -> None:
    """A file to be written. Raises ConfigError, StorageError."""
    found = look(path)
    if found and kind(found):
        raise ConfigError(f"is {kind(found)}, not a file", str(path))
    check_folder(path.parent, str(path))
    if found and not os.access(path, os.W_OK):
        raise StorageError(f"{path}: cannot be written (no permission)")


def check_folder(out: Path, where: str = "--out") -> None:
    """A folder to write into, which may have to be made. Raises ConfigError, StorageError."""
    look(out)
    there = next((folder for folder in (out, *out.parents) if look(folder) or folder.is_symlink()), out)
    if not there.is_dir():
        raise ConfigError(f"{there} is not a folder", where)
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"{there}: cannot be written (no permission)")
