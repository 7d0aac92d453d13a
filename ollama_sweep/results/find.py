"""Finds a sweep in a database: by its file, by its name, or the one that ran last."""

from __future__ import annotations

from pathlib import Path

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SweepRow


def find_sweep(reader: Reader, config: str | None) -> SweepRow:
    """The sweep of a CONFIG or a name; left out, the one that ran last. Raises ConfigError."""
    if config is None:
        last = reader.last_sweep()
        if last is None:
            raise ConfigError("no sweep has run in this database yet. Start with: sweep.py run CONFIG")
        return last
    names = {row.name for row in reader.sweeps()}
    return reader.sweep(config if config in names else _name_of(config))


def _name_of(config: str) -> str:
    path = Path(config)
    if not path.is_file():
        return path.stem if path.suffix in (".yaml", ".yml") else config
    from ollama_sweep.core import strict_yaml
    from ollama_sweep.machine import files

    root = strict_yaml.parse(files.read_text(path, 1), str(path))
    entries = root.value if root is not None and isinstance(root.value, dict) else {}
    return str(entries["name"].value) if "name" in entries else path.stem
