"""What `export` writes, read by the programs that it is for: llama.cpp's compare script and benchstat.

They are the real ones; the sweeps are of the scripted engine, whose second version is half as fast.
"""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from readers import benchstat, compare_llama_bench
from sweeping import Program, label, program

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


def two_versions(program: Program) -> None:
    """Two sweeps of one grid with a failure, the second on a slower version."""
    for name, version, rate in (("before", "0.33.0", 400.0), ("after", "0.34.0", 200.0)):
        program.script(version=version, cells={label(1024, 4): ["cuda_oom"]}, rate=rate)
        program("run", program.grid(name, passes=4, num_predict=8), "--db", f"{name}.db").must()


def test_the_script_of_llama_cpp_compares_two_exports(program: Program) -> None:
    two_versions(program)
    for name in ("before", "after"):
        program("export", name, "--db", f"{name}.db", "--format", "llama-bench", "-o", "sql").must()
    with closing(sqlite3.connect(program.folder / "llama-bench.sqlite")) as db:
        for path in sorted((program.folder / "sql").glob("*_num_ctx-1024.sql")):
            db.executescript(path.read_text("utf-8"))
    said = compare_llama_bench(program.folder, "-b", "0.33.0", "-c", "0.34.0")
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines()]
    assert head[-4:] == ["Test", "t/s 0.33.0", "t/s 0.34.0", "Speedup"]
    found = {row[-4]: tuple(map(float, row[-3:])) for row in rows}
    assert set(found) == {"pp9", "tg8@d9"}
    before, after, speedup = found["pp9"]
    assert before == pytest.approx(2 * after, rel=0.01)
    assert speedup == pytest.approx(0.5, abs=0.01)


def test_benchstat_compares_two_exports(program: Program) -> None:
    two_versions(program)
    for name in ("before", "after"):
        program("export", name, "--db", f"{name}.db", "--format", "benchstat", "-o", f"{name}.txt").must()
    said = benchstat(program.folder, "before.txt", "after.txt")
    table = said.partition("prompt_eval-tokens/s")[2].partition("\n\n")[0]
    for place in ("512/num_batch=2", "512/num_batch=4", "1024/num_batch=2"):
        (line,) = [line for line in table.splitlines() if line.startswith(f"PromptEval/num_ctx={place}")]
        assert re.search(r"-\d+\.\d+% \(p=0\.\d+ n=4\)", line), line
    assert "num_ctx=1024/num_batch=4" not in said
