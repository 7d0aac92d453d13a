"""What a person has set for their own pictures changes none of ours, and breaks none."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot, rc_context
from ollama_fixture import ROOT, clean_environment
from results_maker import make

from ollama_sweep.results.plots import PlotOptions, heatmap

FOREIGN: dict[Any, Any] = {
    "text.usetex": True, "figure.dpi": 100_000, "savefig.dpi": 100_000, "savefig.bbox": "tight",
    "path.sketch": (1, 99, 2), "font.family": "Nowhere", "font.size": 99, "axes.facecolor": "red", "lines.linewidth": 9,
}  # fmt: skip
DRAW = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests/support")!r}]
from results_maker import make
from ollama_sweep.results.plots import PlotOptions, heatmap
sys.stdout.buffer.write(heatmap.picture(heatmap.collect(make(), PlotOptions())[0]))
"""


def picture() -> bytes:
    return heatmap.picture(heatmap.collect(make(), PlotOptions())[0])


@pytest.fixture(scope="module")
def ours() -> bytes:
    return picture()


def drawn(folder: Path, **environment: str) -> bytes:
    """The same picture by a process of its own in this folder, which says nothing else."""
    environment = {**clean_environment(), **environment}
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=folder, env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout


def test_settings_of_a_program_around_it_hold_before_and_after_and_not_in_the_picture(ours: bytes) -> None:
    with rc_context(FOREIGN):
        assert picture() == ours
        assert pyplot.rcParams["text.usetex"]


def test_a_matplotlibrc_and_the_backend_of_a_notebook_are_harmless(ours: bytes, tmp_path: Path) -> None:
    lines = [
        f"{key}: {', '.join(map(str, value)) if isinstance(value, tuple) else value}" for key, value in FOREIGN.items()
    ]
    (tmp_path / "matplotlibrc").write_text("\n".join([*lines, "backend: TkAgg", "nonsense: 5"]), "utf-8")
    assert drawn(tmp_path, MPLBACKEND="module://matplotlib_inline.backend_inline") == ours


def test_settings_that_cannot_be_read_are_harmless(ours: bytes, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"text.usetex: \xff\xfe")
    styles = tmp_path / "settings" / "stylelib"
    styles.mkdir(parents=True)
    (styles / "mine.mplstyle").write_bytes(b"\xff\xfe")
    assert drawn(tmp_path, MPLCONFIGDIR=str(styles.parent), MPLBACKEND="nonsense") == ours


def test_only_one_module_loads_matplotlib_first() -> None:
    """What imports it at its top comes after `own_style`; everything else imports it while a picture is made."""
    for path in (ROOT / "ollama_sweep").rglob("*.py"):
        names: list[str] = []
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
        heavy = [number for number, name in enumerate(names) if name.partition(".")[0] in ("matplotlib", "seaborn")]
        if heavy:
            assert names.index("ollama_sweep.results.plots.shared.own_style") < min(heavy), path
