"""A sweep from Python: of a file, of keys, or of both."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.plan.config import load_spec
from ollama_sweep.plan.keys import SECTIONS
from ollama_sweep.plan.setups import with_tasks
from ollama_sweep.plan.spec import SweepSpec

_UNLIKE_YAML = re.compile("[\x7f-\xa0\u2028\u2029\ufeff]")
"""What JSON may have in a text and YAML reads otherwise."""


def load(
    path: Path | str | None = None,
    *,
    allow_cloud: bool = False,
    allow_local_gguf: bool = False,
    libllama: Path | str | None = None,
    **keys: object,
) -> SweepSpec:
    """A checked sweep, its tasks set up. `keys` are those of a sweep file and win over it. Raises ConfigError.

    `libllama` is the library that the engine of this name loads, where it is not to find one itself.

    `load("configs/quickstart.yaml", num_ctx=[2048, 4096], prompt={"tokens": 500})`
    """
    overrides = {
        "allow_cloud": allow_cloud,
        "allow_local_gguf": allow_local_gguf,
        "libllama": libllama,
        "keys": {name: _as_yaml(name, value) for name, value in _flat(keys)},
    }
    return with_tasks(load_spec(None if path is None else Path(path), overrides))


def _flat(keys: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """What stands in a section of a file, such as `options`, by itself."""
    for name, value in keys.items():
        if name in SECTIONS and isinstance(value, Mapping):
            yield from ((f"{name}.{key}", part) for key, part in value.items())
        else:
            yield name, value


def _as_yaml(name: str, value: object) -> str:
    """JSON, which YAML reads as well."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"is nothing that a sweep file could say ({error})", name) from None
    return _UNLIKE_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, range):
        return list(value)
    raise TypeError(f"a {type(value).__name__}")
