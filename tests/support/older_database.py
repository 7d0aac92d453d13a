"""The databases of earlier versions with everything in them, as a person has them who used these versions."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ollama_fixture import ROOT

from ollama_sweep.core.outcome import Flag

DATA = ROOT / "tests" / "data"
_UNFINISHED = frozenset({"num_ctx 32768, num_batch 16", "num_ctx 65536, num_batch 16"})
_DONE = {"speed": "20 of 24", "settings": "16 of 16", "tasks": "14 of 14", "shared": "3 of 6"}


@dataclass(frozen=True)
class Older:
    """What a version stored, and what later versions make of it.

    `done` are sweeps of the scripted engine with what `run` says of them: what is skipped is not done. `raised` are
    tasks whose version was raised since, because the same answer is judged otherwise: their cells have other keys.
    `flags_since` are flags that it did not know. `unfinished` are the cells that `shared` never reached.
    """

    name: str
    sweeps: int
    attempts: int
    done: Mapping[str, str] = field(default_factory=lambda: _DONE)
    raised: tuple[str, ...] = ()
    flags_since: frozenset[Flag] = frozenset()
    unfinished: frozenset[str] = _UNFINISHED | {"num_ctx 65536, num_batch 8"}

    @property
    def folder(self) -> Path:
        return DATA / self.name

    def __str__(self) -> str:
        return self.name


_SINCE_11 = frozenset({Flag.DISTURBED})
_SINCE_4 = frozenset({Flag.WARM, Flag.LOAD_FAILED, Flag.REUSED}) | _SINCE_11
SCHEMA_2 = Older(
    "schema_2",
    sweeps=11,
    attempts=79,
    done={**_DONE, "tasks": "10 of 14"},
    raised=("json_quality", "mmlu"),
    flags_since=frozenset({Flag.BUSY}) | _SINCE_4,
)
SCHEMA_4 = Older(
    "schema_4",
    sweeps=13,
    attempts=101,
    done={**_DONE, "thinking": "18 of 18", "repeated": "6 of 6"},
    flags_since=_SINCE_4,
)
SCHEMA_11 = Older(
    "schema_11",
    sweeps=19,
    attempts=227,
    done={
        **_DONE, "shared": "4 of 6", "thinking": "18 of 18", "repeated": "6 of 6", "looked": "9 of 9",
        "lengths": "7 of 8", "at_once": "6 of 6", "pruned": "8 of 9", "reused": "9 of 9",
    },
    unfinished=_UNFINISHED,
    flags_since=_SINCE_11,
)  # fmt: skip
OLDER = (SCHEMA_2, SCHEMA_4, SCHEMA_11)


def lay_out(folder: Path, older: Older = SCHEMA_2) -> Path:
    """The person's folder; its database."""
    shutil.copytree(older.folder, folder, dirs_exist_ok=True)
    path = folder / "sweeps.db"
    path.write_bytes(gzip.decompress((folder / "sweeps.db.gz").read_bytes()))
    path.chmod(0o600)
    return path
