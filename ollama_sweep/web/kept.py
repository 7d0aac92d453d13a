"""The address with its token, kept beside the database for its owner only, where nobody sees what is printed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ollama_sweep.core.errors import StorageError
from ollama_sweep.store.beside import serve_path


@contextlib.contextmanager
def kept(db: Path, address: str) -> Iterator[Path]:
    """`DB.serve` holds the address while the block runs. Raises StorageError where it cannot be written.

    It is made anew, so that nobody who has an older one open reads this one, and taken away only while it is ours.
    """
    file = serve_path(db)
    line = f"{address}\n".encode()
    try:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"{file}: cannot be written ({error.strerror or error})") from error
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            if file.read_bytes() == line:
                file.unlink()
