"""The time of an older result: it is one, or it is refused at its line, or there is none."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json

import pytest
from sweeping import Program, json_of, program

NO_TIMES = ("yesterday", "2025-13-01T00:00:00", "10:00", "1730541600", "2025-11-02T25:00:00", "?")
ITEM = {"num_ctx": 512, "num_batch": 2, "prompt_eval_rate": 5.0}


def given(program: Program, *times: object, **more: object) -> None:
    items = [{**ITEM, "num_ctx": 512 + number, "timestamp": time} for number, time in enumerate(times)]
    (program.folder / "old.json").write_text(json.dumps({**more, "results": items}, indent=1))


@pytest.mark.parametrize("time", NO_TIMES)
def test_what_is_no_time_is_refused_at_its_line(time: str, program: Program) -> None:
    given(program, "2025-11-02T10:00:00", time, note={"timestamp": "here", "results": [1]})
    before = program.files()
    lines = (program.folder / "old.json").read_text().splitlines()
    (line,) = (number for number, text in enumerate(lines, 1) if f'"timestamp": "{time}"' in text)
    ended = program("import", "old.json").must(2)
    said = f"old.json:{line}: item 2: timestamp: '{time}' is no time; write one like 2025-11-02T10:00:00"
    assert said in ended.stderr
    assert program.files() == before


def test_a_result_without_a_time_has_none(program: Program) -> None:
    given(program, None, "", " ", "2025-11-02T10:00:00", "2025-11-02 10:00:00.5+01:00", "2025-11-02")
    program("import", "old.json").must()
    times = [row["finished_at"] for row in program.rows(sql="SELECT finished_at FROM results ORDER BY position")]
    assert times == [None, None, None, "2025-11-02T10:00:00", "2025-11-02 10:00:00.5+01:00", "2025-11-02"]
    assert "0 of 6 results are new" in program("import", "old.json").must().stdout
    found = json_of(program("export", "--format", "json"))["results"]
    assert [row["started_at"] for row in found] == times
    for words in (["status"], ["best"], ["watch"], ["verify"], ["export", "--format", "json", "--layout", "simple"]):
        assert "cannot be read" not in program(*words).must().stderr
    program("run", program.grid()).must()
    assert {row["status"] for row in program.rows(sql="SELECT status FROM attempts")} == {"ok"}
