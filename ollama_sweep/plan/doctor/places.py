"""Where results and models lie, looked at without changing anything: is there space, is the database ours and sound?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, SweepError
from ollama_sweep.core.finding import Finding, bad, of_error, ok, warning
from ollama_sweep.core.units import format_bytes
from ollama_sweep.store import file as files
from ollama_sweep.store import lock
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import Holder

LEAST_BYTES = 50 << 20
LITTLE_BYTES = 1 << 30
IMPORT_LEAST, IMPORT_COMFORT = 2, 3
"""Ollama takes two to three times a GGUF file's size to import it: a copy, and its rewritten form."""


def of_disk(what: str, folder: Path, importing_bytes: int = 0) -> Finding:
    """Free space at a folder, or at the nearest one above it that exists; enough for the files to import, too."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return warning("disk", f"{what} at {folder}: cannot be looked at ({error.strerror})")
    text = f"{format_bytes(free)} free for {what} ({folder})"
    if importing_bytes:
        text += f"; importing the .gguf takes up to {format_bytes(IMPORT_COMFORT * importing_bytes)} for a while"
    if free < max(LEAST_BYTES, IMPORT_LEAST * importing_bytes):
        return bad("disk", text, "Free some space", exit_code=4)
    if free < max(LITTLE_BYTES, IMPORT_COMFORT * importing_bytes):
        return warning("disk", text, "Free some space before a long sweep")
    return ok("disk", text)


def of_database(db: Path, *, allow_network: bool = False) -> Iterator[Finding]:
    """Place, owner, soundness and readers of the database, or where it will be made."""
    try:
        warned = files.check_place(db, allow_network, files.file_system)
    except SweepError as error:
        yield of_error("database", error)
        return
    if warned:
        yield warning("database", warned)
    try:
        files.check_writable(db)
    except SweepError as error:
        yield of_error("database", error)
    if not db.exists():
        yield ok("database", f"none at {db} yet; `run` makes it")
    elif db.stat().st_size == 0:
        yield ok("database", f"{db} is an empty file; `run` begins it")
    else:
        yield from _of_file(db)


def _of_file(db: Path) -> Iterator[Finding]:
    try:
        files.check_ours(db)
    except SweepError as error:
        yield of_error("database", error, "Use another file with --db")
        return
    try:
        reader = Reader.open(db)
    except ConfigError as error:  # ours, so it is only empty
        yield warning("database", str(error))
        return
    except SweepError as error:
        yield of_error("database", error)
        return
    with reader:
        yield from _of_content(db, reader)


def _of_content(db: Path, reader: Reader) -> Iterator[Finding]:
    try:
        damage, sweeps = reader.damage(), reader.sweeps()
    except SweepError as error:
        yield of_error("database", error)
        return
    if damage:
        hint = f"Keep a copy of {db.name}, then save what is readable: ollama-sweep recover --db {db} --to new.db"
        yield bad("database", f"{db} is damaged: {damage}", hint, exit_code=4)
        return
    names = ", ".join(row.name for row in sweeps[:3]) + (", ..." if len(sweeps) > 3 else "")
    yield ok("database", f"{db} is sound ({format_bytes(db.stat().st_size)}, sweeps: {names or 'none'})")
    if reader.is_older:
        yield warning("database", f"{db} was made by an older version; `ollama-sweep run` brings it up to date")
    for text in reader.warnings():
        hint = f"chmod 600 {db}" if "others can read" in text else ""
        yield warning("database", text, hint)


def writer(db: Path) -> Holder | None:
    """The process that measures into the database now."""
    return lock.holder(db) if db.exists() else None


def prompt_tokens(db: Path, engine: str, model_digest: str, modelfile: str, prompt_hash: str) -> int | None:
    """A prompt's length as an earlier sweep counted it; None where none has, or the database cannot be read."""
    if not db.exists() or db.stat().st_size == 0:
        return None
    try:
        with Reader.open(db) as reader:
            return reader.prompt_tokens(engine, model_digest, modelfile, prompt_hash)
    except SweepError:
        return None
