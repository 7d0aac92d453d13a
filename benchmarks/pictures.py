"""What a picture costs: time and peak memory of the process that draws a grid of 100 × 100 to 1000 × 1000 cells.

For every size a finished sweep is written into a database by set-based SQL: a quarter of the cells ran out of memory,
some spilled. Then, each in a process of its own:

- `drawing`: the rows are read and the picture is drawn; 100 × 100 with a number in each cell and without
- `heatmap`: the whole command, which writes `results.csv` and `results_table.csv` as well
- `plan`, with --plan: what a run of so many cells would do
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _common

DRAW = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from ollama_sweep.results.large import columns
from ollama_sweep.results.plots import PlotOptions, heatmap
from ollama_sweep.results.plots.shared import heatmap_figure
from ollama_sweep.results.pictures import FROM_COLUMNS, is_many
from ollama_sweep.store.reader import Reader
with Reader.open(Path("sweeps.db")) as reader:
    row = reader.sweep("grid")
    if is_many(reader.counts(row.sweep_id), FROM_COLUMNS):
        data = next(columns.parts_of(columns.read(reader, row), row.machine)).drawn()
    else:
        (data,) = heatmap.collect(list(reader.results(row.sweep_id)), PlotOptions(sweep="grid", machine=row.machine))
heatmap_figure.write(data, Path("picture.png"), labels={labels})
"""
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :cells - 1)"
FAILS = "(i / :side) + (i % :side) > 1.3 * :side"
SPILLS = "(i / :side) + (i % :side) > 1.2 * :side"
FILL = (
    """INSERT INTO sweeps (id, name, engine, config_path, spec, plan_fingerprint, machine, dimensions, repeats,
            created_at, last_run_at, run_order) VALUES (1, 'grid', 'fake', 'grid.yaml', '{"prompt_tokens": 1273}', '',
            'a machine',
            '["num_ctx", "num_batch"]', 1, '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00', 1)""",
    NUMBERS
    + """ INSERT INTO cells (id, key, engine, model, model_digest, num_ctx, num_batch, options, server, task,
            task_options, prompt_hash, status) SELECT i + 1, 'c1:' || i, 'fake', 'm', 'sha256:m',
            2048 + 512 * (i / :side), 16 + 8 * (i % :side), '{}', '{}', 'prompt_eval', '{}', 'sha256:p',
            'pending' FROM n""",
    NUMBERS
    + """ INSERT INTO plan (sweep_id, position, cell_id, coordinates, pending) SELECT 1, i, i + 1,
            json_object('num_ctx', 2048 + 512 * (i / :side), 'num_batch', 16 + 8 * (i % :side)), 0 FROM n""",
    NUMBERS
    + f""" INSERT INTO attempts (id, cell_id, sweep_id, number, status, reason, flags, started_at, finished_at, runs,
            prompt_eval_count, prompt_eval_rate, prompt_eval_rate_min, prompt_eval_rate_max) SELECT i + 1, i + 1, 1, 1,
            CASE WHEN {FAILS} THEN 'oom' ELSE 'ok' END, CASE WHEN {FAILS} THEN 'cuda_oom' ELSE '' END,
            CASE WHEN {FAILS} THEN '' WHEN {SPILLS} THEN 'spilled' ELSE '' END, '2026-01-01T00:00:00+00:00',
            '2026-01-01T00:00:05+00:00', 3, 1273, rate, rate * 0.99, rate * 1.01 FROM (SELECT i,
            CASE WHEN {FAILS} THEN NULL ELSE 2600.0 * (i % :side + 1) / (i % :side + :side / 4)
            * (1 + (i * 7919 % 1000) / 50000.0) END AS rate FROM n)""",
    """UPDATE cells SET (status, reason, attempts, runs, attempt_id) =
            (SELECT status, reason, 1, runs, id FROM attempts WHERE cell_id = cells.id)""",
    "DELETE FROM status_counts",
    """INSERT INTO status_counts (sweep_id, status, cells) SELECT 1, status, count(*) FROM cells GROUP BY status""",
)
JUDGED = (
    "INSERT INTO segments (id, fingerprint, started_at) VALUES (1, '{}', '2026-01-01T00:00:00+00:00')",
    "UPDATE sweeps SET segment_id = 1",
    "UPDATE attempts SET segment_id = 1",
    """INSERT INTO spreads (sweep_id, segment_id, metric, runs_spread, runs_df, loads_spread, loads_df, runs_squares,
            loads_squares, of_medians) VALUES (1, 1, 'prompt_eval_rate', 0.01, 1000, 0.01, 10, 0.1, 0.001, 10)""",
    """INSERT INTO intervals (sweep_id, segment_id, metric, loads, runs, factor)
            VALUES (1, 1, 'prompt_eval_rate', 1, 3, 1.025)""",
)
"""How far runs and loads differ is known, as in nearly every sweep that was measured."""


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Pictures: what the number of cells costs.")
    parser.add_argument("--sides", type=int, nargs="+", default=[100, 200, 1000], help="columns, and as many rows")
    parser.add_argument("--plan", action="store_true", help="also `plan`, which takes a minute for a million cells")
    return parser, parser.parse_args()


def fill(folder: Path, side: int, *, is_judged: bool = False) -> None:
    """A finished sweep of side × side cells."""
    from ollama_sweep.store.writer import Store

    with Store.open(folder / "sweeps.db") as store, store.transaction() as connection:
        for sql in (*FILL, *(JUDGED if is_judged else ())):
            connection.execute(sql, {"side": side, "cells": side * side} if ":side" in sql or ":cells" in sql else {})
    (folder / "grid.yaml").write_text(
        "model: m\nengine: fake\nprompt: {text: one two three four five six seven eight}\n"
        f"num_ctx: {{start: 2048, end: {2048 + 512 * (side - 1)}, step: 512}}\n"
        f"num_batch: {{start: 16, end: {16 + 8 * (side - 1)}, step: 8}}\n",
        "utf-8",
    )


def measured(folder: Path, argv: list[str]) -> list[str]:
    """Seconds and peak memory of a command."""
    ended = _common.must(_common.timed(argv, folder=folder, env=_common.clean_environment()))
    return [f"{ended.seconds:.1f} s", f"{ended.peak_bytes / 1e6:.0f} MB"]


def main() -> None:
    """Measure and print."""
    parser, arguments = parse_arguments()
    _common.head(parser)
    rows = []
    for side in arguments.sides:
        with _common.temporary_folder() as folder:
            fill(folder, side)
            for labels in (False, True) if side <= 100 else (None,):
                code = DRAW.format(root=str(_common.ROOT), labels=labels)
                how = {None: "drawing", False: "drawing, no number in a cell", True: "drawing, a number in each cell"}
                rows.append([f"{side} × {side}", how[labels], *measured(folder, [sys.executable, "-c", code])])
            rows.append([f"{side} × {side}", "heatmap", *measured(folder, [*_common.SWEEP, "heatmap"])])
            if arguments.plan:
                (folder / "sweeps.db").unlink()
                rows.append([f"{side} × {side}", "plan", *measured(folder, [*_common.SWEEP, "plan", "grid.yaml"])])
    _common.table(["cells", "what", "time", "peak memory"], rows)


if __name__ == "__main__":
    main()
