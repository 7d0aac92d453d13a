"""`run --same-version`: an engine of another version is refused where it would open a new segment."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import json
from pathlib import Path

from ollama_fixture import until
from scripted_hosts import GOOD, Hosts, hosts, measured
from scripted_ollama import MODEL
from sweeping import Program, program

MORE = [2, 4, 8, 16]


def strictly(program: Program, config: Path, code: int = 0) -> str:
    ended = program("run", config, "--same-version", "--wait-engine", "0").must(code)
    return ended.stdout + ended.stderr


def versions(program: Program) -> list[str]:
    """Of the segments, in their order."""
    rows = program.rows(sql="select fingerprint from segments order by id")
    return [json.loads(row["fingerprint"])["engine_version"] for row in rows]


def pending(program: Program) -> int:
    return len(program.rows(sql="select * from cells where status = 'pending'"))


# -- one engine ------------------------------------------------------------------------------------------------------


def test_another_version_is_refused_in_one_line_and_nothing_is_measured(program: Program) -> None:
    strictly(program, program.grid(interim="off"))
    program.script(version="2.0")
    attempts = program.rows(sql="select count(*) as n from attempts")
    refused = program("run", program.grid(num_batch=MORE, interim="off"), "--same-version").must(2)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert line == (
        "error: --same-version: the sweep was measured with fake 1.0, and now it is fake 2.0. Go back to that one, or "
        "leave out --same-version: cells from then on belong to a new segment. What is measured is kept"
    )
    assert "Traceback" not in refused.stderr + refused.stdout
    assert program.rows(sql="select count(*) as n from attempts") == attempts
    assert versions(program) == ["1.0"]
    assert pending(program) == 4
    program.script(version="1.0")
    strictly(program, program.grid(num_batch=MORE, interim="off"))
    assert versions(program) == ["1.0"]
    measured(program, 8)
    program("verify").must()


def test_without_the_option_a_new_segment_begins_and_with_it_that_one_goes_on(program: Program) -> None:
    program("run", program.grid(interim="off")).must()
    program.script(version="2.0")
    said = program("run", program.grid(num_batch=[2, 4, 8], interim="off")).must().stdout
    assert "cells from now on belong to a new segment" in said
    assert "new segment" not in strictly(program, program.grid(num_batch=MORE, interim="off"))
    assert versions(program) == ["1.0", "2.0"]
    measured(program, 8)


def test_a_sweep_that_is_done_has_nothing_to_refuse(program: Program) -> None:
    program("run", program.grid(interim="off")).must()
    program.script(version="2.0")
    assert "4 of 4 cells already done" in strictly(program, program.grid(interim="off"))
    assert versions(program) == ["1.0"]


def test_a_server_that_is_upgraded_under_the_sweep_ends_it_with_what_is_measured(
    program: Program, hosts: Hosts
) -> None:
    hosts.add("a")
    server = hosts.servers["a"]
    config = program.grid(
        engine="ollama_http", model=MODEL, host=server.host, num_ctx=list(range(512, 592)), interim="off"
    )
    running = program.start("run", config, "--same-version", env=program.environment())
    until("a cell is measured", lambda: len(server.did("load")) >= 3 or not running.is_running())
    server.script(version="0.35.0", **GOOD)
    said = running.wait().must(2).stderr
    assert "measured with ollama_http 0.34.0, and now it is ollama_http 0.35.0" in said
    assert versions(program) == ["0.34.0"]
    assert pending(program) == 160 - len(program.rows(sql="select * from attempts where status = 'ok'"))
    assert program.rows(sql="select * from attempts where finished_at is null") == []


# -- lanes -----------------------------------------------------------------------------------------------------------


def test_a_lane_that_comes_back_with_another_version_is_left_out_also_where_lanes_are_mixed(
    program: Program, hosts: Hosts
) -> None:
    hosts.add("old", version="0.33.3")
    hosts.add("a")
    strictly(program, hosts.config(program, mixed_lanes=True, num_batch=MORE))
    assert {row["lane"] for row in program.rows()} == {"old", "a"}
    old = hosts.servers["old"]
    loads = old.did("load")
    for version, number in (("0.35.0", 32), ("0.34.0", 64)):  # also that of the other lane is another one
        old.script(version=version, **GOOD)
        said = strictly(program, hosts.config(program, mixed_lanes=True, num_batch=[*MORE, number]))
        assert (
            f"old: left out: has ollama_http {version}, and it has measured with 0.33.3; bring it to 0.33.3, or leave "
            "out --same-version. 1 lane goes on"
        ) in said
    assert old.did("load") == loads
    assert versions(program) == ["0.33.3 | 0.34.0"]
    old.script(version="0.33.3", **GOOD)
    strictly(program, hosts.config(program, mixed_lanes=True, num_batch=[*MORE, 128, 256, 512]))
    assert len(old.did("load")) > len(loads)
    assert versions(program) == ["0.33.3 | 0.34.0"]


def test_where_every_lane_has_another_version_nothing_is_measured(program: Program, hosts: Hosts) -> None:
    hosts.add("a")
    hosts.add("b")
    strictly(program, hosts.config(program))
    for server in hosts.servers.values():
        server.script(version="0.35.0", **GOOD)
    said = strictly(program, hosts.config(program, num_batch=MORE), 5)
    assert "a: left out: has ollama_http 0.35.0, and it has measured with 0.34.0" in said
    assert "no lane is left that could measure; what is measured is saved" in said
    assert versions(program) == ["0.34.0"]
    assert pending(program) == 4


def test_a_new_lane_must_have_the_version_of_the_sweep(program: Program, hosts: Hosts) -> None:
    hosts.add("a")
    strictly(program, hosts.config(program))
    hosts.add("new", version="0.35.0")
    said = strictly(program, hosts.config(program, mixed_lanes=True, num_batch=MORE))
    assert "new: left out: has ollama_http 0.35.0, and the sweep was measured with 0.34.0; bring it to 0.34.0" in said
    assert versions(program) == ["0.34.0"]
    measured(program, 8)
