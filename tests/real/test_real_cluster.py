"""Four hosts with a real Ollama each, of which one dies, comes and goes, is cut off or is of another version."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from clusters import COORDINATOR, SCHEDULER, WORKER, Cluster, rack
from namespaces import network
from ollama_fixture import script_output, until
from real_sweeps import PATIENCE_S, QUICK
from sweeping import Program, program

from ollama_sweep.run import control

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]

HOSTS = ("a", "b", "c", "d")
WAITS = ("--wait-engine", "1h")
NEW, OLD = "0.34.0", "0.33.0"


def with_ollama(version: str) -> str:
    """A path in which this one is found first."""
    return f"{script_output('get_ollama', version).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(autouse=True)
def new_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `ollama` is, here and on every host that says nothing else."""
    monkeypatch.setenv("PATH", with_ollama(NEW))


@pytest.fixture
def hosts(rack: Cluster) -> Cluster:
    """All four have joined."""
    rack.join(*HOSTS)
    return rack


def sweep_file(program: Program, small_model: Path, contexts: int = 4, name: str = "real") -> Path:
    """Two cells of each context."""
    wanted = [512, 768, 1024, 1280][:contexts]
    return program.config(
        name, engine="ollama", model=str(small_model), num_ctx=wanted, num_batch=[32, 64], interim="off", retries=0,
        **QUICK,
    )  # fmt: skip


def measured_once(program: Program, lanes: tuple[str, ...], cells: int = 8) -> None:
    """Every cell has its number, of one attempt, and each host has measured one of them."""
    rows = program.rows("sweeps.db", "select * from results where sweep = 'real' order by position")
    assert [row["status"] for row in rows] == ["ok"] * cells
    assert {row["lane"] for row in rows} == set(lanes)
    counted = program.rows(
        sql="""select status, count(*) as number from attempts where sweep_id =
        (select id from sweeps where name = 'real') group by status"""
    )
    assert counted == [{"status": "ok", "number": cells}]
    program("verify").must()


@pytest.mark.parametrize("whom", [WORKER, SCHEDULER, COORDINATOR])
def test_whoever_is_killed_costs_no_cell(whom: str, hosts: Cluster, program: Program, small_model: Path) -> None:
    config = sweep_file(program, small_model)
    running = hosts.run_at_once(config, len(HOSTS), *WAITS)
    hosts.kill(whom, running)
    hosts.replace(whom, running, config, *WAITS).wait(PATIENCE_S).must()
    measured_once(program, HOSTS)


def test_a_host_that_comes_and_goes_costs_no_cell(hosts: Cluster, program: Program, small_model: Path) -> None:
    running = hosts.run_at_once(sweep_file(program, small_model), len(HOSTS), *WAITS)
    hosts.flap("a", 3)
    running.wait(PATIENCE_S).must()
    measured_once(program, HOSTS)


@pytest.mark.parametrize("cut_s", [30, 600])
def test_hosts_that_are_cut_off_hand_in_what_they_measured_meanwhile(
    cut_s: float, hosts: Cluster, program: Program, small_model: Path
) -> None:
    running = hosts.run_at_once(sweep_file(program, small_model), len(HOSTS), *WAITS)
    hosts.cut("a", "b")
    threading.Event().wait(cut_s)
    hosts.mend("a", "b")
    running.wait(PATIENCE_S).must()
    measured_once(program, HOSTS)


def test_a_host_with_another_ollama_is_left_out(rack: Cluster, program: Program, small_model: Path) -> None:
    rack.join("a", "b")
    rack.run_at_once(sweep_file(program, small_model, contexts=1), 2, *WAITS).wait(PATIENCE_S).must()
    rack.worker("old", path=with_ollama(OLD))
    control.ask_to_pause(program.folder / "sweeps.db")
    running = rack.run(sweep_file(program, small_model), *WAITS)
    left_out = f"old: left out: is of another class: engine_version {OLD}, not {NEW}"
    until("it is left out", lambda: left_out in running.said or not running.is_running(), PATIENCE_S)
    program("continue").must()
    assert left_out in running.wait(PATIENCE_S).must().stdout
    measured_once(program, ("a", "b"))
