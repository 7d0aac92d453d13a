"""What `doctor --lanes` found is kept, and flags what lanes measured that disturb each other, as long as it counts."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from ollama_fixture import free_port, until
from sweeping import Program, json_of, program

from ollama_sweep.core.lanes.disturbance import Compared
from ollama_sweep.core.lanes.lane import Lane
from ollama_sweep.results.large import columns, sheet
from ollama_sweep.results.large.kept import Sheets
from ollama_sweep.store import lock
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store

CELLS = 2
FOUND = "num_ctx 512, num_batch 2 on a: "
NOT_KNOWN = "of one computer disturb each other is not known; measure it: ollama-sweep doctor"


def lanes(program: Program, name: str = "grid", names: tuple[str, ...] = ("a", "b"), **keys: Any) -> Path:
    """A sweep over servers that a scripted engine never asks; one of a name is at the same place in a whole test."""
    file = program.folder / "ports.json"
    ports = json.loads(file.read_text("utf-8")) if file.exists() else {}
    ports |= {one: free_port() for one in names if one not in ports}
    file.write_text(json.dumps(ports), "utf-8")
    hosts = [{"name": one, "host": f"127.0.0.1:{ports[one]}"} for one in names]
    return program.grid(
        name, **{"hosts": hosts, "num_ctx": 512, "warmup": 0, "repeats": 1, "interim": "off", "control": "off", **keys}
    )


def ask_doctor(program: Program, config: Path) -> str:
    """Have `doctor` find that the lanes of a sweep disturb each other; what it says."""
    crowd = program.folder / "crowd"
    crowd.mkdir()
    program.script(noise=0, crowded={"folder": str(crowd), "factor": 0.8})
    said = program("doctor", config, "--lanes").must().stdout
    program.script(noise=0)
    return said


def found(program: Program, config: Path, *, disturbed: bool = True) -> None:
    """The same, or that they do not, as `doctor` keeps it."""
    hosts = yaml.safe_load(config.read_text("utf-8"))["hosts"]
    names = tuple(Lane(one["name"], f"http://{one['host']}") for one in hosts)
    rates = (80.0, 80.0) if disturbed else (100.0, 100.0)
    with Store.open(program.folder / "sweeps.db") as store:
        store.keep_disturbance(config.stem, Compared(names, {"num_ctx": 512, "num_batch": 2}, (100.0, 100.0), rates))


def run_both(program: Program, config: Path) -> str:
    """Measure two cells, one on each lane, at the same time; what is said."""
    gate, before = program.folder / f"gate-{config.stem}", len(program.events("generate"))
    program.script(noise=0, gate=str(gate))
    running = program.start("run", config, env=program.environment())
    until("both are measured", lambda: len(program.events("generate")) >= before + 2)
    gate.touch()
    said = running.wait().must().stdout
    program.script(noise=0)
    return said


def flags(program: Program, sweep: str = "grid") -> list[str]:
    return [row["flags"] for row in program.rows(sql=f"select flags from results where sweep = '{sweep}'")]


@pytest.fixture
def disturbed(program: Program) -> Path:
    """A sweep whose lanes were found to disturb each other before its first cell."""
    program.script(noise=0)
    config = lanes(program)
    found(program, config)
    said = run_both(program, config)
    assert f"Warning: The lanes a, b disturb each other: {FOUND}" in said
    return config


def test_before_it_is_known_a_run_says_which_command_tells(program: Program) -> None:
    program.script(noise=0)
    config = lanes(program)
    said = program("run", config).must().stdout
    assert f"Whether the lanes a, b {NOT_KNOWN} {config} --lanes" in said
    assert set(flags(program)) == {"unfilled"} or set(flags(program)) == {""}


def test_a_finding_flags_what_was_measured_before_it_and_changes_nothing_else(program: Program) -> None:
    config = lanes(program)
    run_both(program, config)
    kept = program.rows(sql="select * from attempts"), program.rows(sql="select * from checksums")
    before = flags(program)
    ask_doctor(program, config)
    assert [sorted({*one.split(",")} - {""}) for one in flags(program)] == [
        sorted({*one.split(","), "disturbed"} - {""}) for one in before
    ]
    assert (program.rows(sql="select * from attempts"), program.rows(sql="select * from checksums")) == kept
    program("verify").must()


def test_a_finding_before_the_first_run_makes_the_database(program: Program) -> None:
    assert "neighbours disturb each other" in ask_doctor(program, lanes(program))
    assert program("status").must(2).stderr.count("\n") == 1
    assert program("best").must(2).stderr.count("\n") == 1
    assert program("watch").must(2).stderr.count("\n") == 1
    run_both(program, lanes(program))
    assert all("disturbed" in one for one in flags(program))


def test_every_reader_shows_it(program: Program, disturbed: Path) -> None:
    assert all("disturbed" in one for one in flags(program))
    sentence = f"The lanes a, b disturb each other: {FOUND}"
    assert sentence in program("status").must().stdout
    assert json_of(program("status", "--json"))["disturbance"]["lanes"] == ["a", "b"]
    assert sentence.split(":")[0] in program("watch").must().stdout
    best = program("best").must().stdout
    assert "the best cell is disturbed: lanes beside its own disturb it (doctor --lanes)" in best
    assert "compares with cells of its sweep only" in best
    explained = program("explain", "0").must().stdout
    assert "flag   disturbed: " in explained
    assert FOUND in explained
    for kind in ("csv", "jsonl", "json"):
        assert program("export", "--format", kind).must().stdout.count("disturbed") >= CELLS
    assert sentence in program("report", "--md").must().stdout
    program("report", "--html", "page.html").must()
    page = (program.folder / "page.html").read_text("utf-8")
    assert sentence in page
    assert "compares with cells of its sweep only" in page
    program("run", disturbed, "--strict").must(6)


def test_a_later_finding_that_there_is_none_takes_it_off_again(program: Program, disturbed: Path) -> None:
    with Reader.open(program.folder / "sweeps.db") as reader:
        before = reader.mark()
    assert (
        "neighbours do not disturb each other by more than chance"
        in program("doctor", disturbed, "--lanes").must().stdout
    )
    assert not any("disturbed" in one for one in flags(program))
    assert "disturb" not in program("status").must().stdout
    assert "disturb each other" not in program("run", disturbed).must().stdout
    with Reader.open(program.folder / "sweeps.db") as reader:
        assert reader.mark() != before, "a page that is open is made anew"


def test_what_was_found_of_other_lanes_says_nothing(program: Program, disturbed: Path) -> None:
    said = program("run", lanes(program, "other", num_thread=2)).must().stdout
    assert f"Whether the lanes a, b {NOT_KNOWN}" in said
    assert not any("disturbed" in one for one in flags(program, "other"))
    said = program("run", lanes(program, names=("c", "d"), num_ctx=2048)).must().stdout
    assert f"Whether the lanes c, d {NOT_KNOWN}" in said
    assert not any("disturbed" in one for one in flags(program))
    (program.folder / "ports.json").unlink()
    run_both(program, lanes(program, num_ctx=8192))
    assert not any("disturbed" in one for one in flags(program)), "the same names elsewhere"


def test_a_lane_that_measured_alone_is_disturbed_by_nobody(program: Program) -> None:
    program.script(noise=0)
    config = lanes(program)
    found(program, config)
    alone = lanes(program, names=("a",))
    assert "disturb" not in program("run", alone).must().stdout
    assert not any("disturbed" in one for one in flags(program))
    run_both(program, lanes(program, num_ctx=[512, 1024]))
    assert ["disturbed" in one for one in flags(program)] == [False, False, True, True]


def test_cells_are_compared_with_those_that_are_disturbed_as_well(program: Program, disturbed: Path) -> None:
    program(
        "run", program.grid("alone", num_ctx=512, warmup=0, repeats=1, num_thread=2, control="off", interim="off")
    ).must()
    run_both(program, lanes(program, "beside", num_thread=3))
    found(program, lanes(program, "beside", num_thread=3))
    said = program("compare", "grid", "alone").must().stdout
    assert f"{CELLS} flagged" in said
    assert "(disturbed" in said
    said = program("compare", "grid", "beside").must().stdout
    assert f"{CELLS} of the cells are flagged disturbed on both sides" in said


def test_very_many_cells_have_the_flags_of_few(program: Program, disturbed: Path) -> None:
    sheets = Sheets()

    def of_sheet() -> list[str]:
        with Reader.open(program.folder / "sweeps.db") as reader, sheets.of(reader, reader.sweep("grid")) as made:
            known = made.columns.coded["flags"]
            rows = columns.read(reader, reader.sweep("grid")).coded["flags"]
            assert [known.words[code] for code in known.codes] == [rows.words[code] for code in rows.codes]
            return [str(known.words[code]) for code in known.codes]

    assert of_sheet() == flags(program)
    found(program, disturbed, disturbed=False)
    assert of_sheet() == flags(program)
    assert not any("disturbed" in one for one in of_sheet())


def test_it_is_found_where_it_was_changed_and_survives_a_recovery(program: Program, disturbed: Path) -> None:
    program("recover", "--to", "new.db").must()
    assert [row["flags"] for row in program.rows("new.db")] == flags(program)
    with sqlite3.connect(program.folder / "new.db") as connection:
        connection.execute("update disturbances set is_there = 0")
    said = program("verify", "--db", "new.db").must(4)
    assert "sweep grid: what doctor --lanes found differs" in said.stdout + said.stderr


def test_where_it_cannot_be_kept_it_is_told_all_the_same(program: Program) -> None:
    program.script(noise=0)
    config = lanes(program)
    (program.folder / "sweeps.db").write_bytes(b"something else, and not ours at all")
    said = json_of(program("doctor", config, "--lanes", "--json"))
    assert [one["state"] for one in said] == ["ok", "warning"]
    assert said[1]["text"].startswith("this could not be kept in sweeps.db, so no cell will be flagged for it: ")
    assert (program.folder / "sweeps.db").read_bytes() == b"something else, and not ours at all"


def test_a_sweep_that_has_begun_meanwhile_keeps_its_database(program: Program, disturbed: Path) -> None:
    held = lock.WriterLock(program.folder / "sweeps.db")
    try:
        said = json_of(program("doctor", disturbed, "--lanes", "--json"))
    finally:
        held.release()
    assert [one["state"] for one in said] == ["warning"]
    assert "nothing is measured beside it" in said[0]["text"]
