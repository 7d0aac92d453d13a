"""Files written whole or not at all, and names that are safe on every disk."""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from ollama_sweep.core.errors import ConfigError, StorageError, nearest
from ollama_sweep.core.strict_yaml import Node

Writer = Callable[[BinaryIO], object]
MAX_NAME_BYTES = 100
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks; those of UTF-32 begin like those of UTF-16."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_TEMPORARY = re.compile(r"\.ollama-sweep\.(\d+)-[0-9a-f]{8}\.tmp")


def write_whole(path: Path, content: bytes | Writer, *, private: bool = False) -> None:
    """Write a file so that at every moment the old one or the new one is there, whole.

    The content goes to a temporary file in the same folder, to the disk, and then takes the name. `content` is the
    bytes, or a function that writes them; a `private` file is for its owner only. Raises StorageError where the disk
    refuses; the old file is then unchanged.
    """
    try:
        if _is_device(path):
            with path.open("wb") as device:
                content(device) if callable(content) else device.write(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent)
        temporary = temporary_beside(path)
        try:
            _write_through(temporary, content, 0o600 if private else 0o666)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)
    except OSError as error:
        raise refused(path, error) from error


def try_folder(folder: Path, where: str) -> None:
    """Find out by a trial whether a folder, which need not be there yet, can be written into; nothing stays of it.

    Raises ConfigError, with `where` in front, for what cannot be a folder; StorageError for one that refuses.
    """
    made: list[Path] = []
    try:
        _make_folders(folder, made)
        trial = temporary_beside(folder / "trial")
        try:
            trial.write_bytes(b"?")
        finally:
            trial.unlink(missing_ok=True)
    except (NotADirectoryError, FileExistsError):
        raise ConfigError(f"{folder} is not a folder, and none can be made there", where) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"{folder}: {error.strerror}", where) from None
        raise StorageError(f"{where}: {folder} cannot be written ({error.strerror or error})") from None
    finally:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Make a folder with what is missing above it; `made` gets what was made, the outermost first."""
    try:
        is_there = stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        _make_folders(folder.parent, made)
        folder.mkdir()
        made.append(folder)
    else:
        if not is_there:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _is_device(path: Path) -> bool:
    """A device or a pipe (`-o /dev/stdout`) is written to, never replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def temporary_beside(path: Path) -> Path:
    """A name for what will take that of `path`; `clear_leftovers` removes it once this process is gone."""
    return path.parent / f".ollama-sweep.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def is_temporary(path: Path) -> bool:
    """Whether the name is one of these, of any process."""
    return _TEMPORARY.fullmatch(path.name) is not None


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


def _write_through(temporary: Path, content: bytes | Writer, mode: int) -> None:
    with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        if callable(content):
            content(stream)
        else:
            stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
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


def refused(path: Path, error: OSError) -> StorageError:
    """The one-line form of what the system said to a write; a used up quota is a full disk, too."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{path}: no space left; the old file is unchanged", no_space=True)
    return StorageError(f"{path}: cannot be written ({error.strerror or error})")


def cache_folder() -> Path:
    """The user's cache folder of this program."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ollama-sweep"


def file_digest(path: Path) -> str:
    """`sha256:` and the digest of a file's content; hashed again only when size or time of change differ."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror or error})", str(path)) from None
    stamp = f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
    memory = cache_folder() / "digests.json"
    known = _remembered(memory)
    if stamp not in known:
        with path.open("rb") as stream:
            known = {**known, stamp: "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()}
        with contextlib.suppress(OSError, StorageError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_whole(memory, json.dumps(known, indent=0).encode())
    return known[stamp]


def _remembered(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(digest) for name, digest in known.items()} if isinstance(known, dict) else {}


def expanded(path: str) -> Path:
    """The path with `~` written out, where that is possible."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def check_file(path: Path, asked: Node | None = None) -> int:
    """The size in bytes of a file that is there; `asked` is the key that names it. Raises ConfigError."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise _unreadable(path, f"file not found{_similar(path)}", asked) from None
    except OSError as error:
        raise _unreadable(path, f"cannot be read ({error.strerror})", asked) from None
    if stat.S_ISDIR(status.st_mode):
        raise _unreadable(path, "is a folder, not a file", asked)
    if not stat.S_ISREG(status.st_mode):
        raise _unreadable(path, "is not a regular file", asked)
    return status.st_size


def read_text(path: Path, limit_mb: int, asked: Node | None = None) -> str:
    """A whole file as text, without a byte order mark; `asked` is the key that names it. Raises ConfigError.

    Every text file of a person is read here: UTF-8, or what its byte order mark says.
    """
    size_mb = check_file(path, asked) / (1 << 20)
    if size_mb > limit_mb:
        raise _unreadable(path, f"is {math.ceil(size_mb * 10) / 10:g} MB; the limit is {limit_mb} MB", asked)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, f"cannot be read ({error.strerror})", asked) from None
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    if not mark and _is_utf_16(content[:200]):
        raise _unreadable(path, "is UTF-16 without a byte order mark; save it as UTF-8", asked)
    try:
        return content.removeprefix(mark).decode(encoding)
    except UnicodeDecodeError as error:
        raise _no_text(path, error, encoding, asked) from None


def _is_utf_16(begin: bytes) -> bool:
    """Most of the text is of Latin letters, each of which has a zero byte beside it."""
    most = max(begin[::2].count(0), begin[1::2].count(0))
    return len(begin) >= 4 and most > 0.35 * len(begin)


def _no_text(path: Path, error: UnicodeDecodeError, encoding: str, asked: Node | None) -> ConfigError:
    """The refusal of a file that is not in the letters that it says, with what to do."""
    before = error.object[: error.start].decode(encoding, "replace")
    here = f"{path}:{before.count(chr(10)) + 1}"
    if encoding != "utf-8":
        return _unreadable(here, f"is cut off or damaged: its byte order mark says {encoding.upper()}", asked)
    byte = f"is not UTF-8 (byte 0x{error.object[error.start]:02x})"
    is_table = path.suffix.lower() in (".csv", ".tsv")
    return _unreadable(here, byte + ("; save it again, in Excel as `CSV UTF-8`" if is_table else ""), asked)


def _unreadable(path: Path | str, what: str, asked: Node | None) -> ConfigError:
    return asked.error(f"{path}: {what}") if asked else ConfigError(what, str(path))


def _similar(path: Path) -> str:
    try:
        hint = nearest(path.name, (other.name for other in islice(path.parent.iterdir(), 1000)))
    except OSError:
        return ""
    return f".{hint}" if hint else ""
