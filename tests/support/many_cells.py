"""A finished sweep of very many cells, written by the benchmark's set-based SQL."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path

from ollama_fixture import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import pictures


def fill(folder: Path, side: int) -> Path:
    """side × side cells, of which some ran out of memory and some spilled; the path of the database."""
    pictures.fill(folder, side, is_judged=True)
    return folder / "sweeps.db"


def twin(path: Path, name: str, factor: float) -> None:
    """Another sweep of the same cells, so many times as fast; both with the runs of each load."""
    rates = ("prompt_eval_rate", "prompt_eval_rate_min", "prompt_eval_rate_max")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        (count,) = connection.execute("SELECT max(id) FROM cells").fetchone()
        bound = {"n": count, "name": name, "factor": factor}
        for table, changes in (
            ("sweeps", {"id": "2", "name": ":name", "run_order": "2"}),
            ("cells", {"id": "id + :n", "key": "key || ' again'", "attempt_id": "attempt_id + :n"}),
            ("plan", {"sweep_id": "2", "cell_id": "cell_id + :n"}),
            ("attempts", {"id": "id + :n", "cell_id": "cell_id + :n", "sweep_id": "2",
                          **{rate: f"{rate} * :factor" for rate in rates}}),
        ):  # fmt: skip
            names = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join(changes.get(column, column) for column in names)
            connection.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM {table}",
                               {key: value for key, value in bound.items() if f":{key}" in chosen})  # fmt: skip
        connection.execute("INSERT INTO status_counts SELECT 2, status, cells FROM status_counts WHERE sweep_id = 1")
        connection.execute(
            """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3)
            INSERT INTO runs (attempt_id, part, number, warmup, nonce, prompt_eval_rate, client_duration_s, believed,
                doubt)
            SELECT a.id, 'run ' || i, i, 0, '', a.prompt_eval_rate * (0.98 + 0.01 * i), 1, 1, ''
            FROM attempts AS a CROSS JOIN n WHERE a.status = 'ok'"""
        )
