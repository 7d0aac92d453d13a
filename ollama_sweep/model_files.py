"""A GGUF file as a model: its metadata, and its digest, remembered so that a large file is hashed once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ollama_sweep.engine import ModelInfo
from ollama_sweep.errors import ConfigError, StorageError
from ollama_sweep.files import write_whole
from ollama_sweep.gguf_header import Header, read_header


def cache_folder() -> Path:
    """The user's cache folder of this program."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ollama-sweep"


def gguf_info(name: str) -> ModelInfo:
    """A GGUF file as a model. Raises ConfigError for a missing, cut off or foreign file."""
    path = Path(name).expanduser()
    header = read_header(path)
    return ModelInfo(
        name=name,
        digest=file_digest(path),
        family=header.architecture,
        parameter_size=header.parameter_size,
        quantization=header.quantization,
        context_length=header.context_length,
        size_bytes=path.stat().st_size,
        kv_bytes_per_token=header.kv_bytes_per_token,
    )


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


def header_of(values: Mapping[str, object]) -> Header:
    """A header from metadata that a server shows (/api/show model_info), for the same derived facts."""
    kept = {name: value for name, value in values.items() if isinstance(value, str | int | float | bool | list)}
    return Header(values=kept, parameter_count=0)
