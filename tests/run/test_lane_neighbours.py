"""`doctor --lanes`: whether lanes disturb each other, by the control cell alone and beside its neighbours."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import free_port, until
from sweeping import Program, program

from ollama_sweep.core.lanes.disturbance import disturbance
from ollama_sweep.run.lanes import neighbours

TURNS = 8
KEPT = "sweeps.db", "sweeps.db.lock"
"""What was found, for the sweep that comes."""


def lanes(program: Program, *names: str, **keys: Any) -> Path:
    """Servers that a scripted engine never asks, and nobody else uses."""
    hosts = [{"name": name, "host": f"127.0.0.1:{free_port()}"} for name in names]
    return program.grid(hosts=hosts, repeats=2, interim="off", **keys)


def of_lanes(program: Program, config: Path, code: int = 0) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(program("doctor", config, "--lanes", "--json").must(code).stdout)
    return found


def nothing_left(program: Program, *files: str) -> None:
    assert program.left_running() == []
    assert {file.name for file in program.folder.glob("*.db*")} == set(files)


def test_neighbours_that_take_something_away_are_seen(program: Program) -> None:
    crowd = program.folder / "crowd"
    crowd.mkdir()
    program.script(crowded={"folder": str(crowd), "factor": 0.8})
    (found,) = of_lanes(program, lanes(program, "a", "b"))
    assert found["state"] == "warning"
    assert "num_ctx 512, num_batch 2 on a: " in found["text"]
    assert "with b at work (-20." in found["text"] or "with b at work (-19." in found["text"]
    assert found["text"].endswith("neighbours disturb each other")
    assert "Use fewer lanes" in found["hint"]
    assert list(crowd.iterdir()) == []
    nothing_left(program, *KEPT)


def test_neighbours_that_take_nothing_away_are_well(program: Program) -> None:
    program.script(noise=0)
    (found,) = of_lanes(program, lanes(program, "a", "b", "c"))
    assert found["state"] == "ok"
    assert "with b, c at work (+0.0 %" in found["text"]
    nothing_left(program, *KEPT)


def test_where_chance_is_large_nothing_is_said_and_what_was_known_stays(program: Program) -> None:
    crowd = program.folder / "crowd"
    crowd.mkdir()
    config = lanes(program, "a", "b", warmup=0)
    program.script(noise=0, crowded={"folder": str(crowd), "factor": 0.8})
    of_lanes(program, config)
    known = program.rows(sql="select * from disturbances")
    program.script(noise=0, slows={"after": TURNS, "factor": 0.5})
    (found,) = of_lanes(program, config)
    assert found["state"] == "warning"
    assert found["text"].endswith("too much chance to say whether neighbours disturb each other")
    assert program.rows(sql="select * from disturbances") == known


def test_lanes_of_a_cluster_are_measured_where_they_are(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "TURNS", (False, True, True, False))
    state, crowd = program.folder / "state", program.folder / "crowd"
    crowd.mkdir()
    program.script(noise=0, crowded={"folder": str(crowd), "factor": 0.8})
    config = program.grid(interim="off", warmup=0)
    words, env = ("--cluster", "local:2"), {"XDG_STATE_HOME": str(state)}
    assert program("doctor", config, *words).must(2).stderr.startswith("error: --cluster: only with --lanes")
    (found,) = json.loads(program("doctor", config, "--lanes", "--json", *words, env=env).must().stdout)
    assert "with local1 at work (-20.0 %" in found["text"]
    until("all of it has ended", lambda: not program.left_running())
    nothing_left(program, *KEPT)
    said = program("run", config, *words, env=env).must().stdout
    assert "Warning: The lanes local0, local1 disturb each other: " in said


def test_a_cell_that_cannot_be_measured_is_told(program: Program) -> None:
    program.script(oom_above=1)
    (found,) = of_lanes(program, lanes(program, "a", "b"), 5)
    assert "the control cell cannot be measured on a (oom" in found["text"]
    nothing_left(program)


def test_ctrl_c_leaves_nothing_behind(program: Program) -> None:
    program.script(gate=str(program.folder / "gate"))
    running = program.start("doctor", lanes(program, "a", "b"), "--lanes", env=program.environment())
    until("it measures", lambda: program.events("generate") or not running.is_running())
    running.kill(signal.SIGINT)
    assert "stopped before it was known; nothing of it is kept" in running.wait().must(130).stderr
    nothing_left(program)


def test_a_sweep_without_lanes_or_with_one_has_nothing_to_compare(program: Program) -> None:
    (found,) = of_lanes(program, program.grid(), 2)
    assert found["text"] == "--lanes: the sweep has no lanes: it needs the key gpus or hosts, or --cluster"
    (found,) = of_lanes(program, lanes(program, "a"), 5)
    assert "fewer than two lanes can measure" in found["text"]
    nothing_left(program)


def test_by_chance_one_in_twenty_is_seen_and_a_real_difference_nearly_always() -> None:
    chance = random.Random(5)

    def rates(factor: float = 1.0) -> list[float]:
        return [factor * 100 * (1 + chance.gauss(0, 0.02)) for _ in range(TURNS // 2)]

    assert 20 < sum(disturbance(rates(), rates()).is_there for _ in range(1000)) < 85
    assert sum(disturbance(rates(), rates(0.9)).is_there for _ in range(1000)) > 980
