"""Forms of `export` for other programs: parquet, llama-bench's SQL, benchstat's text, what Datasette shows.

What the programs themselves make of them is in `tests/real/test_real_readers.py`.
"""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
import pytest
from older_database import SCHEMA_11, lay_out
from sweeping import Program, json_of, label, program

from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.metrics import metric
from ollama_sweep.machine.files import write_whole
from ollama_sweep.results.formats import llama_bench, parquet
from ollama_sweep.results.formats.described import INNER, TABLES
from ollama_sweep.store import reader
from ollama_sweep.store.loads.compared import attempts_sql

GPU_FAILURE = "CUDA OOM"


def measured(program: Program, name: str = "grid", **keys: Any) -> None:
    """A finished sweep with one failure."""
    program.script(cells={label(1024, 4): ["cuda_oom"]})
    program("run", program.grid(name, **keys)).must()


def kept(program: Program) -> None:
    """The database of an earlier version, with sweeps of every kind."""
    lay_out(program.folder, SCHEMA_11)


def refused(program: Program, *words: str, says: str, code: int = 2) -> None:
    """One line, and nothing is created."""
    before = {path: path.stat().st_mtime_ns for path in program.folder.rglob("*")}
    ended = program(*words).must(code)
    assert says in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(("error: ", "try: "))
    assert ended.stdout == ""
    assert {path: path.stat().st_mtime_ns for path in program.folder.rglob("*")} == before


# -- parquet ---------------------------------------------------------------------------------------------------------


def exported(program: Program, *words: str) -> Any:
    program("export", *words, "--format", "parquet", "-o", "x.parquet", "--force").must()
    return pq.read_table(program.folder / "x.parquet")


def test_parquet_has_the_numbers_of_every_other_form(program: Program) -> None:
    measured(program)
    rows = json_of(program("export", "--format", "json"))["results"]
    table = exported(program)
    times = ("started_at", "finished_at")
    for row in rows:
        row.update({name: datetime.fromisoformat(row[name]).astimezone(UTC) for name in times})
    assert table.column_names == list(rows[0])
    assert table.to_pylist() == rows
    failed = table.to_pylist()[-1]
    assert (failed["status"], failed["prompt_eval_rate"], failed["eval_count"]) == ("oom", None, None)


def test_parquet_columns_have_types_and_units(program: Program) -> None:
    kept(program)
    table = exported(program, "settings")
    types = {field.name: str(field.type) for field in table.schema}
    assert types["num_ctx"] == types["size_bytes"] == types["num_gpu"] == "int64"
    assert types["prompt_eval_rate"] == types["temperature"] == types["score"] == "double"
    assert types["kv_cache_type"] == types["error"] == "string"
    assert types["finished_at"] == "timestamp[us, tz=UTC]"
    assert set(table.column("temperature").to_pylist()) == {0.5, 1.0}
    about = json.loads(table.schema.metadata[b"ollama_sweep"])
    assert [sweep["name"] for sweep in about["sweeps"]] == ["settings"]
    for name in ("prompt_eval_rate", "load_duration_s", "peak_rss_bytes"):
        told = {key.decode(): value.decode() for key, value in table.schema.field(name).metadata.items()}
        assert told["unit"] == metric(name).unit == about["columns"][name]["unit"]
        assert told["description"] == metric(name).words


def test_parquet_is_written_part_by_part(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(program)
    whole = exported(program)
    monkeypatch.setattr(reader, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(parquet, "PARTS_IN_A_GROUP", 3)
    assert exported(program).equals(whole)
    groups = pq.ParquetFile(program.folder / "x.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [3, 1]


def test_every_kept_sweep_can_be_parquet(program: Program) -> None:
    """Also one that was imported, one that waits, one of two arms, and one with questions."""
    kept(program)
    cells = {row["name"]: row["cells"] for row in program.rows(sql="""select name, count(*) as cells
        from sweeps join plan on sweep_id = sweeps.id group by name""")}  # fmt: skip
    assert len(cells) == SCHEMA_11.sweeps
    assert {name: exported(program, name).num_rows for name in cells} == cells


def test_without_pyarrow_it_is_said_what_to_install(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(program)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    refused(program, "export", "--format", "parquet", "-o", "x.parquet", says="pip install 'ollama-sweep[parquet]'")


def test_parquet_is_not_for_a_terminal(program: Program) -> None:
    measured(program)
    for words in ((), ("-o", "-")):
        refused(program, "export", "--format", "parquet", *words, says="name a file with -o FILE")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_disk_that_fills_up_meanwhile_is_the_storages_fault(program: Program) -> None:
    kept(program)
    with reader.Reader.open(program.folder / "sweeps.db") as db, db.snapshot():
        write = parquet.writing(db, [db.sweep("speed")])
        with pytest.raises(StorageError, match="no space left"):
            write_whole(Path("/dev/full"), write)


def test_a_value_that_cannot_be_read_is_null_and_said(program: Program) -> None:
    measured(program)
    with closing(sqlite3.connect(program.folder / "sweeps.db")) as db, db:
        db.execute("UPDATE cells SET quantization = CAST(x'ff41' AS TEXT) WHERE num_batch = 2")
    ended = program("export", "--format", "parquet", "-o", "x.parquet").must()
    assert "quantization of a cell" in ended.stderr
    assert pq.read_table(program.folder / "x.parquet").column("quantization").to_pylist()[0] is None


def test_a_database_that_is_being_written_is_exported_as_it_was(program: Program) -> None:
    measured(program)
    before = exported(program)
    with closing(sqlite3.connect(program.folder / "sweeps.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE cells SET reason = 'half'")
        assert exported(program).equals(before)
        writer.execute("ROLLBACK")


# -- llama-bench -----------------------------------------------------------------------------------------------------


def sql_files(program: Program, *words: str, out: str = "sql") -> dict[str, list[dict[str, Any]]]:
    """The rows of each file that was written, by the file's name, as SQLite reads them."""
    listed = program("export", *words, "--format", "llama-bench", "-o", out).must().stdout.splitlines()
    assert sorted(listed) == sorted(f"{out}/{path.name}" for path in (program.folder / out).iterdir())
    found = {}
    for path in (program.folder / out).iterdir():
        with closing(sqlite3.connect(":memory:")) as db:
            db.row_factory = sqlite3.Row
            db.executescript(path.read_text("utf-8"))
            found[path.name] = [dict(row) for row in db.execute("SELECT * FROM llama_bench")]
    return found


def test_each_num_ctx_is_a_file_of_llama_bench(program: Program) -> None:
    measured(program, num_thread=2)
    found = sql_files(program)
    assert {name: [row["n_batch"] for row in rows] for name, rows in found.items()} == {
        "grid_num_ctx-512.sql": [2, 4], "grid_num_ctx-1024.sql": [2],
    }  # fmt: skip
    (row,) = found["grid_num_ctx-1024.sql"]
    rate = program.cells()[1024, 2]
    assert list(row) == list(llama_bench.FIELDS)
    assert (row["n_prompt"], row["n_gen"], row["n_depth"]) == (rate["prompt_eval_count"], 0, 0)
    assert row["avg_ts"] == pytest.approx(rate["prompt_eval_rate"])
    assert row["avg_ns"] == pytest.approx(rate["prompt_eval_duration_s"] * 1e9, rel=1e-6)
    assert (row["n_threads"], row["n_gpu_layers"], row["flash_attn"], row["load_mode"]) == (2, -1, -1, "auto")
    assert (row["build_number"], row["model_n_params"]) == (None, None)
    assert row["test_time"] == f"{datetime.fromisoformat(rate['started_at']):%Y-%m-%dT%H:%M:%SZ}"


def test_what_was_generated_is_a_row_where_it_was_wanted(program: Program) -> None:
    measured(program, num_ctx=[512], num_batch=[2], num_predict=8)
    rows = sql_files(program)["grid_num_ctx-512.sql"]
    said = program.cells()[512, 2]
    assert [(row["n_prompt"], row["n_gen"], row["n_depth"]) for row in rows] == [(9, 0, 0), (0, 8, 9)]
    assert rows[1]["avg_ts"] == pytest.approx(said["eval_rate"])


def test_what_llama_bench_has_no_column_for_is_a_file_of_its_own(program: Program) -> None:
    measured(program, num_ctx=[512], num_batch=[2], num_gpu=[0, 4], temperature=[0.0, 1.0])
    found = sql_files(program, "--build-commit", "abc1234")
    assert {name: [row["n_gpu_layers"] for row in rows] for name, rows in found.items()} == {
        "grid_num_ctx-512_temperature-0.0.sql": [0, 4], "grid_num_ctx-512_temperature-1.0.sql": [0, 4],
    }  # fmt: skip
    assert {row["build_commit"] for rows in found.values() for row in rows} == {"abc1234"}


def test_text_of_others_stays_text_in_sql(program: Program) -> None:
    program.script(version="1'; DROP TABLE llama_bench; --")
    program("run", program.grid(num_ctx=[512])).must()
    with closing(sqlite3.connect(program.folder / "sweeps.db")) as db, db:
        db.execute("UPDATE cells SET quantization = 'it''s'")
    (rows,) = sql_files(program).values()
    assert {row["model_type"] for row in rows} == {"m 135M it's"}
    assert {row["build_commit"] for row in rows} == {"1___DROP_TABLE_llama_bench__--"}


def test_files_of_llama_bench_are_written_over_only_by_force(program: Program) -> None:
    measured(program)
    export = ("export", "--format", "llama-bench", "-o", "sql")
    (program.folder / "sql").mkdir()
    (program.folder / "sql" / "grid_num_ctx-1024.sql").write_text("mine")
    refused(program, *export, says="sql/grid_num_ctx-1024.sql: exists; use --force")
    program(*export, "--force").must()
    assert (program.folder / "sql" / "grid_num_ctx-1024.sql").read_text() != "mine"


def test_one_file_of_llama_bench_may_go_to_the_terminal(program: Program) -> None:
    measured(program)
    refused(program, "export", "--format", "llama-bench", says="makes 2 files, one for each num_ctx")
    measured(program, "one", num_ctx=[512])
    program("export", "one", "--format", "llama-bench", "-o", "sql").must()
    said = program("export", "one", "--format", "llama-bench").must().stdout
    assert said == (program.folder / "sql" / "one_num_ctx-512.sql").read_text()


BAD = {
    "--format parket": "Did you mean parquet?",
    "--format llama-bnech": "Did you mean llama-bench?",
    "--format parquet --layout simple -o x": "simple exists for json only, not for parquet",
    "--format benchstat --build-commit abc": "only llama-bench has a build",
    "--format llama-bench --build-commit a/b": "is no name of a build",
    "--format llama-bench -o sweeps.db": "sweeps.db is not a folder",
    "--format datasette grid": "leave grid out",
    "--format parquet -o .": "is a folder, not a file",
    "--format parquet -o sweeps.db/x": "sweeps.db is not a folder",
    "--format benchstat gird": "Did you mean grid?",
}


def test_bad_input_is_one_line(program: Program) -> None:
    measured(program)
    for words, says in BAD.items():
        refused(program, "export", *words.split(), says=says)


def test_a_sweep_without_loads_is_none_for_a_comparison(program: Program) -> None:
    old = {"results": [{"num_ctx": 512, "num_batch": 2, "prompt_eval_rate": 101.5, "timestamp": None, "error": None}]}
    (program.folder / "old.json").write_text(json.dumps(old))
    program("import", "old.json").must()
    refused(program, "export", "--format", "benchstat", says="the sweep old has no load with runs")
    refused(
        program,
        "export",
        "--format",
        "llama-bench",
        "-o",
        "x",
        says="the sweep old has no load of the task prompt_eval",
    )
    assert exported(program).num_rows == 1


def test_questions_are_nothing_for_llama_bench(program: Program) -> None:
    program("run", program.grid(task="chat", num_ctx=[512], num_batch=[4])).must()
    refused(program, "export", "--format", "llama-bench", says="no load of the task prompt_eval")
    said = program("export", "--format", "benchstat").must().stdout
    assert "BenchmarkChat/num_ctx=512/num_batch=4 " in said


# -- benchstat -------------------------------------------------------------------------------------------------------


def test_a_load_is_a_line_for_benchstat(program: Program) -> None:
    measured(program, num_ctx=[512, 1024], passes=2)
    said = program("export", "--format", "benchstat").must().stdout.splitlines()
    lines = [line.split() for line in said if line.startswith("Benchmark")]
    assert [line[0] for line in lines if "512" in line[0]] == [
        f"BenchmarkPromptEval/num_ctx=512/num_batch={batch}" for batch in (2, 2, 4, 4)
    ]
    assert {line[1] for line in lines} == {"3"}
    first, second = (float(line[line.index("prompt_eval-tokens/s") - 1]) for line in lines[:2])
    runs = program.rows(sql="""select attempts.id, runs.prompt_eval_rate as rate from runs
        join attempts on attempts.id = runs.attempt_id join cells on cells.id = cell_id
        where cells.num_ctx = 512 and cells.num_batch = 2 and believed and not warmup""")  # fmt: skip
    of_load = [[row["rate"] for row in runs if row["id"] == number] for number in sorted({row["id"] for row in runs})]
    assert [first, second] == [pytest.approx(median(rates)) for rates in of_load]
    assert "Unit prompt_eval-tokens/s better=higher" in said
    assert "Unit load-sec better=lower" in said
    assert not [line for line in said if "eval-tokens/s" in line.replace("prompt_eval-tokens/s", "")]
    assert said[-1] == f"# 1 cells have no number: 1 {GPU_FAILURE}"


def test_a_segment_is_exported_by_itself(program: Program) -> None:
    """Before an update and after it: each load is one of its own version, also where both are one sweep."""
    measured(program, num_ctx=[512], num_batch=[2])
    program.script(version="2.0")
    program("run", program.grid(num_ctx=[512], num_batch=[2], passes=3)).must()
    for number, version, loads in ((1, "1.0", 1), (2, "2.0", 2)):
        said = program("export", f"grid@{number}", "--format", "benchstat").must().stdout.splitlines()
        assert said[0].startswith(f"# sweep grid on fake {version};")
        assert sum(line.startswith("Benchmark") for line in said) == loads
        rows = sql_files(program, f"grid@{number}", out=f"sql{number}")[f"grid_segment-{number}_num_ctx-512.sql"]
        assert [row["build_commit"] for row in rows] == [version] * loads
    refused(program, "export", "grid@3", "--format", "benchstat", says="has no segment 3; it has @1 to @2")


def test_only_what_varies_stands_in_a_name(program: Program) -> None:
    program.script(models=["hf.co/some/model", "n"])
    program("run", program.grid(model=["hf.co/some/model", "n"], num_ctx=[512], num_batch=[2])).must()
    said = program("export", "--format", "benchstat").must().stdout
    assert "BenchmarkPromptEval/model=hf.co_some_model/num_ctx=512/num_batch=2 3 " in said


# -- Datasette -------------------------------------------------------------------------------------------------------


def test_all_that_datasette_is_told_of_is_there(program: Program) -> None:
    measured(program)
    told = json_of(program("export", "--format", "datasette"))["databases"]["sweeps"]
    with closing(sqlite3.connect(program.folder / "sweeps.db")) as db:
        names = {name for (name,) in db.execute("select name from sqlite_master where type in ('table', 'view')")}
        assert set(told["tables"]) <= names
        assert set(TABLES) | set(INNER) <= names
        for name, about in told["tables"].items():
            columns = {row[1] for row in db.execute(f"pragma table_info({name})")}
            assert set(about.get("columns", ())) <= columns
            if name == "results":
                assert set(about["columns"]) == columns
        wanted = {"sweep": "grid", "num_ctx": 512, "num_batch": 2}
        found = {name: db.execute(one["sql"], wanted).fetchall() for name, one in told["queries"].items()}
    assert all(rows or name == "flagged" for name, rows in found.items())
    rate, unit = metric("prompt_eval_rate"), "tokens/s, higher is better"
    assert told["tables"]["results"]["columns"]["prompt_eval_rate"] == f"{rate.words} ({unit})"


def test_datasette_serves_it(program: Program) -> None:
    measured(program)
    program("export", "--format", "datasette", "-o", "metadata.json").must()
    asked = [sys.executable, "-m", "datasette", "sweeps.db", "--metadata", "metadata.json", "--get"]

    def page(path: str) -> str:
        done = subprocess.run([*asked, path], check=False, cwd=program.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    best = json.loads(page("/sweeps/best_cells.json?_shape=array&sweep=grid"))
    assert {(row["num_ctx"], row["num_batch"]) for row in best} == {(512, 2), (512, 4), (1024, 2)}
    assert "prompt processing speed (tokens/s, higher is better)" in page("/sweeps/results")


def test_the_loads_of_a_cell_are_found_by_the_cell(program: Program) -> None:
    """Not by the sweep: of very many cells each would be compared with all."""
    measured(program)
    sql = f"EXPLAIN QUERY PLAN SELECT a.id FROM {attempts_sql(None)}"
    steps = [row["detail"] for row in program.rows(sql=sql.replace(":sweep", "1"))]
    (of_loads,) = [step for step in steps if step.startswith(("SEARCH a ", "SCAN a"))]
    assert "(cell_id=?)" in of_loads
