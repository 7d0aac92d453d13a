"""`python undrawn.py …` is `python sweep.py …` in a fifth of the time: its pictures are files without a picture.

Drawing and the packages for it take longer than a small sweep; what pictures look like has tests of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ollama_sweep.machine.files import write_whole

FILE = Path(__file__)


def pretend_to_draw(data: object, path: Path, dpi: float | None = None) -> None:
    """Stands in for `heatmap.render`."""
    write_whole(path, b"a picture")


def main() -> None:
    """What `sweep.py` does."""
    from ollama_sweep import cli

    if "run" in sys.argv[1:2]:
        from ollama_sweep.results.plots import heatmap

        heatmap.render = pretend_to_draw
        import_without_heavy()
    cli.main()


def import_without_heavy() -> None:
    """sqlite-utils imports pandas and numpy where they are, only to know their types."""
    if "sqlite_utils" in sys.modules:
        return
    heavy = ("pandas", "numpy")
    sys.modules.update(dict.fromkeys(heavy))  # type: ignore[arg-type]
    import sqlite_utils  # noqa: F401

    for name in heavy:  # the interval of several loads needs numbers
        del sys.modules[name]


if __name__ == "__main__":
    sys.path.insert(0, str(FILE.parents[2]))
    main()
