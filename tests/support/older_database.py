"""The database of version 2 with everything in it, as a person has it who used that version."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from ollama_fixture import ROOT

DATA = ROOT / "tests" / "data" / "schema_2"


def lay_out(folder: Path) -> Path:
    """The person's folder; its database."""
    shutil.copytree(DATA, folder, dirs_exist_ok=True)
    path = folder / "sweeps.db"
    path.write_bytes(gzip.decompress((folder / "sweeps.db.gz").read_bytes()))
    path.chmod(0o600)
    return path
