"""Status, rows and the best cells of a database, for Python, against what the commands print."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sweeping import Program, json_of, label, program

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.outcome import Status
from ollama_sweep.results.find import best, rows
from ollama_sweep.results.status import status


@pytest.fixture
def db(program: Program) -> Path:
    """Two sweeps; `grid` ran last, and one of its cells is out of memory."""
    program("run", program.grid("early", num_ctx=512, repeats=1)).must()
    program.script(cells={label(1024, 4): ["oom"]})
    program("run", program.grid(repeats=1)).must()
    return program.folder / "sweeps.db"


def test_the_status_is_what_the_command_prints(program: Program, db: Path) -> None:
    found = status(db)
    assert found.as_dict() == json_of(program("status", "--db", db, "--json"))
    assert (found.sweep, found.total, found.done, found.failed) == ("grid", 4, 4, 1)
    assert dict(found.counts) == {Status.OK: 3, Status.OOM: 1}
    assert (found.running, found.process, found.next, found.time.seconds_left) == (None, None, None, 0.0)
    assert [(error.status, dict(error.coordinates)) for error in found.errors] == [
        (Status.OOM, {"num_ctx": 1024, "num_batch": 4})
    ]


def test_a_sweep_is_found_by_its_name_and_by_its_file(program: Program, db: Path) -> None:
    for given in ("early", str(program.folder / "early.yaml")):
        assert status(str(db), given).sweep == best(db, given).sweep == "early"
        assert len(rows(db, given)) == 2


def test_rows_are_those_of_an_export(program: Program, db: Path) -> None:
    found = rows(db)
    assert {"results": found} == json_of(program("export", "--format", "json"))
    assert [(row["num_ctx"], row["num_batch"], row["status"]) for row in found] == [
        (512, 2, "ok"), (512, 4, "ok"), (1024, 2, "ok"), (1024, 4, "oom"),
    ]  # fmt: skip
    assert len({tuple(row) for row in found}) == 1, "every row has every column"


def test_the_best_is_what_the_command_prints(program: Program, db: Path) -> None:
    found = best(db)
    said = json_of(program("best", "--json"))
    assert {"sweep": found.sweep, **found.cells.as_dict(), "modelfile": said["modelfile"]} == said
    assert program("best").must().stdout.startswith(found.text)
    assert best(db, metric="eval_rate").cells.metric.name == "eval_rate"


@pytest.mark.parametrize("ask", [status, rows, best])
def test_what_is_not_there_is_one_line(ask: Callable[..., object], db: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no sweep gird\. Did you mean grid"):
        ask(db, "gird")
    with pytest.raises(ConfigError, match="no database at"):
        ask(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
