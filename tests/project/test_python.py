"""The program as a Python package: its names, what they return, and the notebook that shows them."""

from __future__ import annotations

import importlib
import itertools
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import ROOT
from sweeping import Program, program

import ollama_sweep

__all__ = ["program"]
GRID: dict[str, Any] = {
    "model": "m", "engine": "fake", "prompt": {"text": "one two three"}, "num_ctx": [512, 1024], "num_batch": [2, 4],
}  # fmt: skip


def import_everything() -> None:
    for module in pkgutil.walk_packages(ollama_sweep.__path__, "ollama_sweep."):
        if not module.name.endswith(("worker", "__main__")):
            importlib.import_module(module.name)


def call(name: str, db: Path) -> object:
    """One call of a function of the package; the sweep is there already."""
    function = getattr(ollama_sweep, name)
    if name == "load":
        return function(**GRID)
    if name == "compare":
        return function("first", "second", db=db)
    return function(ollama_sweep.load(**GRID), db) if name in ("preview", "measure") else function(db)


def test_every_function_is_there_twice_and_in_any_order(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(program.folder)
    db = program.folder / "sweeps.db"
    for sweep in ("first", "second", "sweep"):
        ollama_sweep.measure(ollama_sweep.load(name=sweep, **GRID), db)
    import_everything()
    names = [*ollama_sweep.__all__]
    for order in (names, names[::-1]):
        for name, _ in itertools.product(order, range(2)):
            assert call(name, db) is not None
    assert set(names) <= set(dir(ollama_sweep))


def test_what_they_say_is_what_the_commands_say(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(program.folder)
    db = Path("sweeps.db")
    spec = ollama_sweep.load(name="grid", **GRID)
    assert ollama_sweep.preview(spec, db).to_run == 4
    ollama_sweep.measure(spec, db)
    found = ollama_sweep.status(db)
    assert (found.total, found.done, found.failed) == (4, 4, 0)
    assert found.as_dict() == json.loads(program("status", "--json").must().stdout)
    assert ollama_sweep.best(db).text in program("best").must().stdout
    exported = [json.loads(line) for line in program("export", "--format", "jsonl").must().stdout.splitlines()]
    assert [row["cell"] for row in ollama_sweep.rows(db)] == [row["cell"] for row in exported]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'meassure'"):
        ollama_sweep.meassure  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, ollama_sweep; print([name for name in sys.modules if name.startswith('ollama_sweep.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_notebook_runs_from_its_first_cell_to_its_last(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code in order, as a person's kernel would run it; the database is one that has failures, too."""
    import matplotlib as mpl
    from matplotlib import pyplot

    mpl.use("agg")
    program.script(cells={"num_ctx=1024,num_batch=4": ["cuda_oom"]})
    program("run", program.grid(num_ctx=[512, 1024], num_batch=[2, 4])).must()
    monkeypatch.chdir(program.folder)
    notebook = json.loads((ROOT / "docs/notebook.ipynb").read_text("utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert len(pyplot.get_fignums()) == 2
    pyplot.close("all")
