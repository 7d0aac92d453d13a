"""`/metrics` and `/api`: the numbers of `status`, in the forms that programs read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from served import asked
from sweeping import GRID, Program
from sweeping import program as program  # a fixture

LINE = re.compile(r'[a-z_]+(\{([a-z]+="([^"\\]|\\.)*",?)*\})? -?[0-9.e+-]+')


@pytest.fixture
def db(program: Program) -> Path:
    """A sweep of four cells, one of them out of memory."""
    program.script(cells={"num_ctx 1024, num_batch 4": ["cuda_oom"]})
    program("run", program.config('a "quoted" name', **GRID)).must()
    return program.folder / "sweeps.db"


def test_metrics_are_prometheus_text_with_the_numbers_of_status(program: Program, db: Path) -> None:
    answer = asked(db).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert all(line.startswith(("# HELP ", "# TYPE ")) or LINE.fullmatch(line) for line in lines)
    status = json.loads(program("status", "--json").must().stdout)
    name = r'sweep="a \"quoted\" name"'
    assert f'ollama_sweep_cells{{{name},status="ok"}} 3' in lines
    assert f"ollama_sweep_cells_done{{{name}}} {status['done']}" in lines
    assert f"ollama_sweep_cells_failed{{{name}}} {status['failed']}" in lines
    assert "ollama_sweep_up 1" in lines


def test_metrics_say_that_the_database_is_gone(db: Path) -> None:
    page = asked(db)
    db.unlink()
    answer = page.get("/metrics")
    assert answer.status_code == 200
    assert "ollama_sweep_up 0" in answer.text


def test_the_api_says_what_the_commands_say(program: Program, db: Path) -> None:
    page = asked(db)
    status = json.loads(program("status", "--json").must().stdout)
    assert page.get("/api/status").json() == {**status, "database": str(db), "log": status["log"]}
    best = json.loads(program("best", "--json").must().stdout)
    assert page.get("/api/best").json()["best"] == best["best"]
    explained = json.loads(program("explain", "3", "--json").must().stdout)
    assert page.get("/api/cell?at=3").json() == explained
    assert [one["sweep"] for one in page.get("/api/sweeps").json()["sweeps"]] == ['a "quoted" name']
    cells = page.get("/api/cells").json()
    assert [cell["status"] for cell in cells["cells"]] == ["ok", "ok", "ok", "oom"]
    assert cells["next"] is None
    assert len(page.get("/api/cells?from=2").json()["cells"]) == 2


def test_what_is_not_there_is_an_error_in_json(db: Path) -> None:
    for path in ("/api/status?sweep=x", "/api/cell?at=9", "/api/cell", "/api/cells?from=-1", "/api/best?metric=x"):
        answer = asked(db).get(path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]
