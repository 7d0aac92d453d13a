"""The commands from outside: what they print, where they print it, and with which exit code they end."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import sqlite3
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import click
import pytest
from ollama_fixture import ROOT, clean_environment, until
from sweep_runner import ONE_LOAD
from sweeping import GRID, Program, json_of, label, program

from ollama_sweep import __version__
from ollama_sweep.cli import COMMANDS, cli

READING = ("status", "heatmap", "export", "best", "watch", "logs", "stop", "pause", "continue")
OLD: dict[str, list[dict[str, Any]]] = {
    "results": [
        {"num_ctx": 512, "num_batch": 2, "prompt_eval_rate": 101.5, "timestamp": "2025-01-02T03:04:05", "error": None},
        {"num_ctx": 512, "num_batch": 4, "prompt_eval_rate": None, "timestamp": None, "error": "CUDA OOM"},
    ]
}
HEAVY = ("matplotlib", "numpy", "seaborn", "pandas", "sqlite_utils", "ollama", "httpx", "rich")


def measured(program: Program, **keys: Any) -> Path:
    """A finished sweep with one failure, and its file."""
    program.script(cells={label(1024, 4): ["cuda_oom"]})
    config = program.grid(**keys)
    program("run", config).must()
    return config


def piped(program: Program, *words: str | Path, stdout: int, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and stderr of a child that writes to a descriptor of ours."""
    done = subprocess.run(
        [sys.executable, str(program.file), *map(str, words)],
        check=False, cwd=program.folder, env={**clean_environment(), **program.environment(), **(env or {})},
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr


ONE_AFTER_THE_OTHER = """
import json, sys
import undrawn
for words in json.loads(sys.argv[1]):
    sys.argv = ["sweep.py", *words]
    try:
        undrawn.main()
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
"""
"""Several commands of the program in one process."""

# Help


def test_the_help_names_every_command(program: Program) -> None:
    for words in (("--help",), ("-h",)):
        said = program(*words).must().stdout
        assert all(f"  {name} " in said for name in COMMANDS)
        assert "Example:" in said


def test_the_one_line_helps_are_those_of_the_commands(program: Program) -> None:
    """They are read from the files without importing them."""
    said = program("--help").must().stdout.partition("Commands:")[2].splitlines()
    listed = dict(line.split(maxsplit=1) for line in said if line)
    commands = {name: cli.get_command(click.Context(cli), name) for name in COMMANDS}
    assert listed == {name: command.short_help for name, command in commands.items() if command is not None}
    assert tuple(listed) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, program: Program) -> None:
    said = program(name, "--help").must().stdout
    example = said.partition("Example:\n")[2]
    assert f"ollama-sweep {name}" in example
    has_none = name in ("schema", "hosts", "scheduler", "worker", "completion")
    assert ("--db" in said) is not has_none, "every other command has to do with a database"
    assert program.files() == set()


def test_the_version_is_said(program: Program) -> None:
    assert __version__ in program("--version").must().stdout


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (("stauts",), "unknown command stauts.", "Did you mean status?"),
        (("run", "--ctx-strat", "5"), "No such option '--ctx-strat'.", "--ctx-start"),
        (("import",), "Missing argument 'FILE'.", "FILE"),
        (("export", "--format", "xlsx"), "Invalid value for '--format'", "jsonl"),
        (("status", "a", "b"), "unexpected extra argument (b)", "CONFIG"),
        (("run", "--max-cells", "0"), "Invalid value for '--max-cells'", "0"),
        (("status", "--db", "a.db", "--db", "b.db"), "--db is given 2 times", "one database"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistyped_command_line_gets_the_usage_and_a_hint(
    words: tuple[str, ...], error: str, hint: str, program: Program
) -> None:
    ended = program(*words).must(2)
    usage, line, advice = ended.stderr.splitlines()[0], *ended.stderr.splitlines()[-2:]
    assert usage.startswith("Usage: ollama-sweep")
    assert line.startswith("error: ")
    assert error in line
    assert hint in ended.stderr
    assert advice.startswith("try: ollama-sweep")
    assert advice.endswith("--help")
    assert (ended.stdout, program.files()) == ("", set())


@pytest.mark.parametrize("words", [("--help",), ("status",), ("run", "--help")], ids=" ".join)
def test_what_is_heavy_is_imported_only_where_it_is_used(words: tuple[str, ...], program: Program) -> None:
    measured(program)
    script = (
        f"import sys; from ollama_sweep.cli import main\ntry: main()\nfinally: print(set({HEAVY}) & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        check=True, cwd=program.folder, env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.endswith("set()\n")


# Databases


@pytest.mark.parametrize("name", READING)
def test_without_a_database_nothing_is_read_and_nothing_is_made(name: str, program: Program) -> None:
    ended = program(name).must(2)
    assert ended.stderr.startswith("error: no database at sweeps.db")
    assert len(ended.stderr.splitlines()) == 1
    assert (ended.stdout, program.files()) == ("", set())


@pytest.mark.parametrize("name", ["status", "heatmap", "export", "best"])
def test_an_empty_database_is_said(name: str, program: Program) -> None:
    (program.folder / "sweeps.db").touch()
    assert program(name).must(2).stderr == "error: sweeps.db is empty. Start with: ollama-sweep run CONFIG\n"
    assert (program.folder / "sweeps.db").stat().st_size == 0


@pytest.mark.parametrize("words", [("run", "grid.yaml"), ("status",), ("import", "old.json"), ("plan", "grid.yaml")])
def test_another_programs_database_is_left_alone(words: tuple[str, ...], program: Program) -> None:
    program.grid()
    (program.folder / "old.json").write_text(json.dumps(OLD))
    with sqlite3.connect(program.folder / "sweeps.db") as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    content, files = (program.folder / "sweeps.db").read_bytes(), program.files()
    ended = program(*words).must(3)
    assert ended.stderr == "error: sweeps.db belongs to another program (tables: customers)\n"
    assert (program.folder / "sweeps.db").read_bytes() == content
    assert program.files() == files


@pytest.mark.parametrize("words", [("run", "grid.yaml"), ("status",)])
def test_a_file_that_is_no_database_is_left_alone(words: tuple[str, ...], program: Program) -> None:
    program.grid()
    (program.folder / "sweeps.db").write_bytes(b"my shopping list\n" * 500)
    files = program.files()
    assert "is not a SQLite database, or it is damaged" in program(*words).must(4).stderr
    assert program.files() == files


def test_a_database_may_lie_elsewhere(program: Program) -> None:
    (program.folder / "elsewhere").mkdir()
    program("run", program.grid(), "--db", "elsewhere/x.db").must()
    assert not (program.folder / "sweeps.db").exists()
    assert json_of(program("status", "--json", "--db", "elsewhere/x.db"))["done"] == 4
    assert "the folder" in program("run", program.grid(), "--db", "nowhere/x.db").must(2).stderr
    assert not (program.folder / "nowhere").exists()


def test_a_second_run_is_refused_with_the_number_of_the_first(program: Program) -> None:
    gate = program.folder / "gate"
    program.script(gate=str(gate))
    config = program.grid()
    first = program.start("run", config, env=program.environment())
    until("the first is at work", lambda: bool(program.events("generate")))
    ended = program("run", config).must(3)
    assert ended.stderr.startswith(f"error: Already running: pid {first.pid} since ")
    picture = json_of(program("status", "--json"))
    assert (picture["process"]["pid"], picture["done"], picture["counts"]) == (
        first.pid,
        0,
        {"started": 1, "pending": 3},
    )
    assert picture["running"]["coordinates"] == {"num_ctx": 512, "num_batch": 2}
    assert f"pid {first.pid}" in program("status").must().stdout
    assert (program.folder / json_of(program("heatmap", "--json"))["files"][0]).is_file()
    gate.touch()
    first.wait().must()
    assert program.measured() == {label(ctx, batch): 4 for ctx in (512, 1024) for batch in (2, 4)}


# status, heatmap, export, best


def test_status_counts_and_names_the_last_errors(program: Program) -> None:
    config = measured(program)
    said = program("status").must().stdout
    assert "Sweep grid on fake: 4 of 4 cells done" in said
    assert "3 ok, 1 oom" in said
    assert "oom: num_ctx 1024, num_batch 4: cudaMalloc failed: out of memory" in said
    for named in ((), ("grid",), (config,), ("gone/grid.yaml",)):
        picture = json_of(program("status", *named, "--json"))
        assert (picture["total"], picture["done"], picture["failed"]) == (4, 4, 1)
        assert picture["counts"] == {"ok": 3, "oom": 1}
        assert picture["running"] is picture["process"] is None


def test_the_sweep_that_ran_last_is_meant(program: Program) -> None:
    for name in ("one", "two", "one"):
        program("run", program.grid(name)).must()
        assert json_of(program("status", "--json"))["sweep"] == name
    program("run", named(program, "a/b")).must()
    assert json_of(program("status", "file.yaml", "--json"))["sweep"] == "a/b"
    assert "has no sweep tow. Did you mean two?" in program("status", "tow").must(2).stderr


def named(program: Program, name: str) -> Path:
    """A sweep file whose sweep has another name than the file."""
    file = program.folder / "file.yaml"
    file.write_text(json.dumps({**GRID, "name": name}), "utf-8")
    return file


@pytest.mark.parametrize("name", ["CON", "../../outside", "x" * 300, "ä ö"])
def test_any_name_is_a_label_and_never_a_path(name: str, program: Program) -> None:
    program("run", named(program, name)).must()
    (folder,) = (program.folder / "heatmaps").iterdir()
    assert (folder / "results.csv").is_file()
    made = {path.name for path in program.folder.iterdir() if not path.name.startswith("sweeps.db")}
    assert made == {"file.yaml", "fake.json", "journal.txt", "heatmaps"}
    assert not (program.folder.parent / "outside").exists()
    assert json_of(program("status", name, "--json"))["sweep"] == name


def test_heatmap_draws_any_metric_in_any_form(program: Program) -> None:
    measured(program)
    program.draws = True
    files = json_of(program("heatmap", "--json"))["files"]
    assert files[0] == "heatmaps/grid/heatmap_highlighted.png"
    assert (program.folder / files[0]).read_bytes().startswith(b"\x89PNG")
    said = program("heatmap", "--metric", "load_duration_s", "--format", "svg", "--out", "pictures").must().stdout
    assert said.splitlines()[0] == "pictures/grid/heatmap_load_duration_s.svg"
    assert "<svg" in (program.folder / "pictures/grid/heatmap_load_duration_s.svg").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metric", "prompt_eval_rat"), "Did you mean prompt_eval_rate?"),
        (("--metric", 'x"; DROP TABLE cells; --'), "only letters, digits and _"),
        (("--format", "gif"), "gif is not a kind of picture. Allowed: png, svg, pdf"),
    ],
)
def test_a_heatmap_that_cannot_be_drawn_leaves_nothing(words: tuple[str, str], message: str, program: Program) -> None:
    measured(program)
    files = program.files()
    assert message in program("heatmap", *words, "--out", "pictures").must(2).stderr
    assert program.files() == files


def test_export_is_read_by_other_programs(program: Program) -> None:
    measured(program)
    rows = list(csv.DictReader(io.StringIO(program("export").must().stdout)))
    assert [(row["num_ctx"], row["num_batch"], row["status"]) for row in rows] == [
        ("512", "2", "ok"), ("512", "4", "ok"), ("1024", "2", "ok"), ("1024", "4", "oom"),
    ]  # fmt: skip
    full = json.loads(program("export", "--format", "json").must().stdout)["results"]
    lines = [json.loads(line) for line in program("export", "--format", "jsonl").must().stdout.splitlines()]
    assert full == lines
    assert [str(row["prompt_eval_rate"] or "") for row in full] == [row["prompt_eval_rate"] for row in rows]
    table = program("export", "--format", "md").must().stdout.splitlines()
    assert len(table) == 2 + 4
    assert "CUDA OOM" in table[-1]
    assert program("export", "-o", "out/x.csv").must().stdout == "out/x.csv\n"
    assert (program.folder / "out/x.csv").read_text() == program("export").must().stdout


@pytest.mark.parametrize("name", ["export", "best"])
def test_a_file_is_written_over_only_by_force(name: str, program: Program) -> None:
    measured(program)
    (program.folder / "mine").write_text("mine")
    assert program(name, "-o", "mine").must(2).stderr == "error: mine: exists; use --force\n"
    assert (program.folder / "mine").read_text() == "mine"
    program(name, "-o", "mine", "--force").must()
    assert (program.folder / "mine").read_text() != "mine"


def test_best_is_words_json_and_a_modelfile(program: Program) -> None:
    (program.folder / "template").write_text("FROM other\nSYSTEM Be brief.\nPARAMETER num_ctx 7\nPARAMETER seed 3\n")
    measured(program, modelfile="template")
    said = program("best", "-o", "tuned").must().stdout
    assert said.startswith("Best: num_ctx 512 with num_batch 4: 133 tokens/s")
    text = (program.folder / "tuned").read_text()
    assert text == ("FROM m\nSYSTEM Be brief.\nPARAMETER seed 3\nPARAMETER num_ctx 512\nPARAMETER num_batch 4\n")
    assert text in said
    found = json_of(program("best", "--json"))
    assert (found["best"]["num_ctx"], found["best"]["num_batch"], found["modelfile"]) == (512, 4, text)


def test_best_of_nothing_is_said(program: Program) -> None:
    program.script(oom_above=0)
    program("run", program.grid()).must()
    assert "No cell has a number: CUDA OOM (4)." in program("best", "-o", "tuned").must().stdout
    assert json_of(program("best", "--json"))["best"] is None
    assert not (program.folder / "tuned").exists()


# import


def test_the_words_of_an_older_tool_are_understood(program: Program) -> None:
    """Its own, with and without what stood behind them, and those of the engines that it has kept."""
    words = {
        "Timeout": ("timeout", ""),
        "timed out after 600 s": ("timeout", ""),
        "Timeout or no output": ("timeout", ""),
        "CUDA OOM": ("oom", "cuda_oom"),
        "Failed to create model": ("error", "create"),
        "Failed to create model: no space left on device": ("error", "create"),
        "model requires more system memory (12.3 GiB) than is available (7.9 GiB)": ("oom", "host_oom"),
        "Error: llama runner process has terminated: signal: killed": ("crashed", "killed"),
        "This model's maximum context length is 4096 tokens.": ("truncated", "does_not_fit"),
        "the cat sat on it": ("error", ""),
    }
    results = [
        {"num_ctx": 512 * number, "num_batch": 64, "prompt_eval_rate": None, "timestamp": "", "error": text}
        for number, text in enumerate(words, start=1)
    ]
    (program.folder / "old.json").write_text(json.dumps({"results": results}))
    program("import", "old.json").must()
    assert {row["error"]: (row["status"], row["reason"]) for row in program.rows()} == words


def test_old_results_come_back_as_they_were(program: Program) -> None:
    (program.folder / "old.json").write_text(json.dumps(OLD))
    assert program("import", "old.json").must().stdout == "2 of 2 results are new in sweep old (flag: imported)\n"
    assert "0 of 2 results are new" in program("import", "old.json").must().stdout
    assert {row["flags"] for row in program.rows()} == {"imported"}
    back = json.loads(program("export", "--format", "json", "--layout", "simple").must().stdout)
    keep = ("num_ctx", "num_batch", "prompt_eval_rate", "error")
    assert [{name: row[name] for name in keep} for row in back["results"]] == [
        {name: row[name] for name in keep} for row in OLD["results"]
    ]  # fmt: skip
    assert back["results"][0]["timestamp"] == "2025-01-02T03:04:05"
    (program.folder / "back.json").write_text(json.dumps(back))
    program("import", "back.json", "--name", "again", "--db", "other.db").must()
    assert (
        json.loads(program("export", "--format", "json", "--layout", "simple", "--db", "other.db").must().stdout)
        == back
    )


def test_imported_results_are_never_mixed_with_measured_ones(program: Program) -> None:
    measured(program)
    (program.folder / "old.json").write_text(json.dumps(OLD))
    before = program.rows()
    assert "is the name of a measured sweep" in program("import", "old.json", "--name", "grid").must(2).stderr
    program("import", "old.json").must()
    assert [row for row in program.rows() if row["sweep"] == "grid"] == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "old.json: file not found"),
        ("{", "old.json:1: is not JSON"),
        ("[]", "old.json: has no results"),
        ('{"results": []}', "old.json: the list of results is empty"),
        ('{"results": [{"num_ctx": "512", "num_batch": 2, "prompt_eval_rate": 1}]}', "item 1: num_ctx: '512' is"),
        ('{"results": [{"num_ctx": 512, "num_batch": 2, "prompt_eval_rate": NaN}]}', "NaN is not a number"),
    ],
)  # fmt: skip
def test_a_bad_old_file_makes_no_database(content: str | None, message: str, program: Program) -> None:
    if content is not None:
        (program.folder / "old.json").write_text(content)
    files = program.files()
    ended = program("import", "old.json").must(2)
    assert ended.stderr.startswith("error: ")
    assert message in ended.stderr
    assert program.files() == files


# plan


def test_plan_says_what_a_run_would_do_and_does_nothing(program: Program) -> None:
    config = program.grid(num_ctx=[11, 512, 1024], num_batch=[2, 16], timeout=60)
    picture = json_of(program("plan", config, "--json"))
    assert program.files() == {"grid.yaml", "journal.txt"}
    assert (picture["cells"], picture["done"], picture["to_run"], picture["why"]) == (6, 0, 4, {"new": 4})
    assert picture["does_not_fit"] == [11]
    assert picture["unfilled"] == [16]
    assert picture["first"][0] == "num_ctx 512, num_batch 2"
    program.script(cells={label(512, 2): ["timeout"]})
    program("run", config).must()
    picture = json_of(program("plan", config, "--timeout", "2m", "--json"))
    assert (picture["done"], picture["to_run"]) == (3, 1)
    assert picture["why"] == {"timed out after 60 s, the limit is 120 s now": 1}
    picture = json_of(program("plan", config, "--set", "repeats=5", "--set", "num_ctx=[512, 2048]", "--json"))
    assert picture["why"] == {"has 3 runs, 5 are asked for now": 1, "new": 2}
    assert picture["changes"] == ["num_ctx 2048 is new (2 cells)", "num_ctx 11, 1024 is gone (its cells are kept)"]
    said = program("plan", config).must().stdout
    assert "6 cells, 4 done, 0 to run" in said
    assert "the prompt does not fit num_ctx 11" in said
    assert "KV cache (f16)" in said
    assert len(program.rows()) == 6


def test_plan_and_run_agree_about_every_reason(program: Program) -> None:
    program.script(cells={label(512, 2): ["timeout", "ok"], label(512, 4): ["oom"], label(1024, 2): ["crashed"]})
    program("run", program.grid(timeout=60)).must()
    again = program.grid(timeout=90, repeats=4, num_ctx=[512, 1024, 2048])
    picture = json_of(program("plan", again, "--json"))
    before = program.measured()
    program("run", again).must()
    assert sum(program.measured()[cell] > before[cell] for cell in program.measured()) == picture["to_run"] == 4


# The command line wins, and is enough


def test_two_ranges_and_the_command_line_are_enough(program: Program) -> None:
    (program.folder / "p.txt").write_text("one two three\n")
    ranges = {"num_ctx": {"start": 512, "end": 1024, "step": 256}, "num_batch": {"start": 2, "end": 4, "step": 2}}
    config = program.config("old", **ranges, warmup=1, **ONE_LOAD)
    words = ("--model", "m", "--prompt", "p.txt", "--engine", "fake", "--ctx-end", "768", "--set", "repeats=1")
    program("run", config, *words).must()
    assert sorted(program.cells()) == [(512, 2), (512, 4), (768, 2), (768, 4)]
    assert set(program.measured().values()) == {2}


def test_run_without_a_file_takes_the_default(program: Program) -> None:
    (program.folder / "configs").mkdir()
    program.grid().rename(program.folder / "configs/default.yaml")
    program("run").must()
    assert {row["sweep"] for row in program.rows()} == {"default"}


def test_run_prints_json_alone_on_stdout(program: Program) -> None:
    ended = program("run", program.grid(), "--json").must()
    assert json.loads(ended.stdout)["files"][0] == "heatmaps/grid/heatmap_highlighted.png"
    assert "4/4  num_ctx 1024, num_batch 4" in ended.stderr


# Where the output goes


def test_a_reader_that_has_seen_enough_is_no_error(program: Program) -> None:
    measured(program, num_ctx=list(range(512, 612)), repeats=1, warmup=0)
    with subprocess.Popen(
        [sys.executable, str(ROOT / "sweep.py"), "export", "--format", "json"],
        cwd=program.folder, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == b"{\n"
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "words", [("status",), ("export",), ("best",), ("--help",), ("plan", "grid.yaml")], ids=" ".join
)
def test_a_full_disk_under_stdout_is_said(words: tuple[str, ...], program: Program) -> None:
    measured(program)
    with open("/dev/full", "wb") as full:
        code, said = piped(program, *words, stdout=full.fileno())
    assert code == 4
    assert said.splitlines()[-1] == "error: no space left where the output goes (No space left on device)"
    assert "Traceback" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_its_log_does_not_stop_a_sweep(program: Program) -> None:
    config = program.grid()
    with open("/dev/full", "wb") as full:
        code, said = piped(program, "run", config, stdout=full.fileno())
    assert (code, said) == (0, "warning: no space left where the output goes; the sweep goes on\n")
    assert {row["status"] for row in program.rows()} == {"ok"}


def test_stdout_may_be_closed(program: Program) -> None:
    config = program.grid()
    words = f"{sys.executable} {program.file}"
    for command in (f"run {config}", "status", "export", "--help"):
        done = subprocess.run(
            ["sh", "-c", f"{words} {command} >&-"],
            check=False, cwd=program.folder, env={**clean_environment(), **program.environment()},
            capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), command
    assert {row["status"] for row in program.rows()} == {"ok"}


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "cp1252:strict"},
    ],
    ids=str,
)
def test_every_terminal_can_show_what_is_said(env: dict[str, str], program: Program) -> None:
    program.script(cells={label(512, 2): ["cuda_oom"], label(512, 4): ["crashed", "ok"]})
    config = program.grid(num_ctx=[11, 512, 1024, *range(2048, 2060)])
    commands = (("plan", config), ("run", config), ("status",), ("best",), ("export", "--format", "md"), ("--help",))
    ended = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(commands, default=str)],
        check=False, cwd=program.folder, capture_output=True, text=True, errors="replace",
        env={**clean_environment(), **program.environment(), "PYTHONPATH": f"{ROOT / 'tests/support'}", **env},
    )  # fmt: skip
    assert ended.returncode == 0, ended
    assert ended.stderr.replace("Counting the prompt's tokens on m\n", "") == ""
    assert ended.stdout.count("Example:") == 1, "the last command was reached"


@pytest.mark.parametrize(
    "words", [("--help",), ("run", "--help"), ("run", "grid.yaml"), ("status",), ("plan", "grid.yaml")]
)
def test_a_terminal_of_twenty_columns_is_enough(words: tuple[str, ...], program: Program) -> None:
    measured(program)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    program.grid(num_ctx=[512, 1024, 2048])
    code, said = piped(program, *words, stdout=slave)
    os.close(slave)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert code == 0
    assert "Traceback" not in said + shown
    parts = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part) for part in shown.split("\r\x1b[2K")]
    live = [part for part in parts if part and "\n" not in part]
    assert all(len(part) < 20 for part in live)
    assert bool(live) is (words[:2] == ("run", "grid.yaml"))


def test_a_database_that_others_can_read_is_said(program: Program) -> None:
    measured(program)
    assert (program.folder / "sweeps.db").stat().st_mode & 0o777 == 0o600
    assert program("status").must().stderr == ""
    (program.folder / "sweeps.db").chmod(0o644)
    assert program("status").must().stderr == "warning: sweeps.db: others can read it (mode 644)\n"
