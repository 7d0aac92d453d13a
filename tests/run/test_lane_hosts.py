"""Servers as lanes: one that is down, answers as another model, has none, or is of another version is left out."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ollama_fixture import until
from openai_server import HTML, PAGE, Reply, scripted_server
from scripted_hosts import GOOD, Hosts, hosts, measured
from scripted_ollama import MODEL
from sweeping import Program, program


def run(program: Program, config: Path, code: int = 0) -> str:
    ended = program("run", config, "--wait-engine", "0").must(code)
    return ended.stdout + ended.stderr


def test_servers_measure_one_sweep_together(program: Program, hosts: Hosts) -> None:
    hosts.add("a")
    hosts.add("b")
    said = run(program, hosts.config(program))
    assert "2 lanes: a, b" in said
    measured(program)
    assert len(hosts.servers["a"].did("load")) + len(hosts.servers["b"].did("load")) >= 4
    assert hosts.servers["b"].did("load")


def test_a_host_that_is_down_is_left_out(program: Program, hosts: Hosts) -> None:
    hosts.add("a")
    said = run(program, hosts.config(program, {"name": "b", "host": "127.0.0.1:1"}))
    assert (
        "b: left out: no Ollama server answers at http://127.0.0.1:1. Start it with: ollama serve. 1 lane goes on"
        in said
    )
    measured(program)


def test_the_first_host_that_answers_says_what_must_be_known(program: Program, hosts: Hosts) -> None:
    hosts.add("a", raw={"/api/tags": json.dumps({"models": []})})
    hosts.add("b")
    said = run(program, hosts.config(program))
    assert f"a: left out: {MODEL} is not installed here. Run: ollama pull {MODEL}. 1 lane goes on" in said
    measured(program)


def test_a_host_with_another_model_under_the_name_is_left_out(program: Program, hosts: Hosts) -> None:
    hosts.add("a")
    other = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "digest": "0123", "size": 1}
    hosts.add("b", raw={"/api/tags": json.dumps({"models": [other]})})
    said = run(program, hosts.config(program))
    assert f"b: left out: answers with another {MODEL} (sha256:0123, not sha256:{MODEL}:latest" in said
    measured(program)


def test_hosts_of_another_version_are_left_out_and_which_is_measured_stays(program: Program, hosts: Hosts) -> None:
    hosts.add("old", version="0.33.3")
    hosts.add("a")
    hosts.add("b")
    said = run(program, hosts.config(program))
    assert "old: left out: is of another class: engine_version 0.33.3, not 0.34.0" in said
    assert not hosts.servers["old"].did("load")
    measured(program)
    hosts.servers["b"].script(version="0.35.0", **GOOD)
    loads = hosts.servers["b"].did("load")
    run(program, hosts.config(program, num_batch=[2, 4, 8, 16]))
    measured(program, 8)
    assert hosts.servers["b"].did("load") == loads
    assert len(program.rows(sql="select * from segments")) == 1


def test_lanes_that_are_not_alike_measure_where_that_is_asked_for(program: Program, hosts: Hosts) -> None:
    hosts.add("old", version="0.33.3")
    hosts.add("a")
    said = run(program, hosts.config(program, mixed_lanes=True, num_batch=[2, 4, 8, 16]))
    assert "left out" not in said
    measured(program, 8)
    assert {row["lane"] for row in program.rows()} == {"old", "a"}
    (segment,) = program.rows(sql="select fingerprint from segments")
    assert json.loads(segment["fingerprint"])["engine_version"] == "0.33.3 | 0.34.0"
    program("verify").must()


def test_a_spare_lane_begins_where_another_is_left_out(program: Program, hosts: Hosts) -> None:
    hosts.add("a")
    down = [{"name": f"down{number}", "host": f"127.0.0.1:{number}"} for number in (1, 2)]
    config = program.grid(
        engine="ollama_http", model=MODEL, hosts=[*down, {"name": "a", "host": hosts.servers["a"].host}], num_ctx=512,
        interim="off",
    )  # fmt: skip
    said = run(program, config)
    assert "a: has nothing to do: there are fewer cells than lanes" in said
    assert "down2: left out" in said
    measured(program, 2)


def test_no_host_at_all_is_told_for_each(program: Program) -> None:
    names = [{"name": name, "host": f"127.0.0.1:{number}"} for number, name in enumerate("ab", 1)]
    said = run(program, program.grid(engine="ollama_http", hosts=names), 5)
    assert "a: no Ollama server answers at http://127.0.0.1:1" in said
    assert "b: no Ollama server answers at http://127.0.0.1:2" in said
    assert not (program.folder / "sweeps.db").exists()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=401), r"is behind a password (HTTP 401). Ollama asks for none: name its own address"),
        (Reply(PAGE, kind=HTML), "not as Ollama. Name the port of Ollama, which is 11434 where nobody set another"),
        (Reply(status=502), "answers /api/version with HTTP 502. Its log says why"),
    ],
)
def test_a_host_that_is_no_ollama_is_told_as_what_it_is(
    reply: Reply, words: str, program: Program, hosts: Hosts
) -> None:
    hosts.add("a")
    with scripted_server() as other:
        other.replies = {"/api/version": [reply]}
        said = run(program, hosts.config(program, {"name": "b", "host": other.host}), 0)
    (line,) = [line for line in said.splitlines() if "b: left out" in line]
    assert words in line
    measured(program)


def test_a_server_that_dies_is_left_out_and_the_others_go_on(program: Program, hosts: Hosts) -> None:
    hosts.add("a")
    hosts.add("b", stops=True)
    config = hosts.config(program, num_batch=[2, 4, 8, 16], retries=3)
    running = program.start("run", config, "--wait-engine", "0", env=program.environment())
    until("b measures", lambda: hosts.servers["b"].did("load") or not running.is_running())
    hosts.servers["b"].kill()
    said = running.wait().must().stdout
    assert re.search(r"b: left out: (no Ollama server answers|the Ollama server) at \S+", said), said
    assert [row["status"] for row in program.rows()] == ["ok"] * 8
