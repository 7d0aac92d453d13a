"""Hosts with a real Ollama each, which are cut off from all others for longer than a cell."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
from clusters import Rack, rack
from namespaces import Network, network
from ollama_fixture import script_output, until
from real_sweeps import PATIENCE_S, QUICK
from sweeping import Program, program

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("cut_s", [30, 600])
def test_real_hosts_that_are_cut_off_hand_in_what_they_measured_meanwhile(
    cut_s: float, rack: Rack, network: Network, program: Program, small_model: Path
) -> None:
    rack.join("a", "b")
    config = program.config(
        "real", engine="ollama", model=str(small_model), num_ctx=[512, 1024, 2048], num_batch=[32, 64], interim="off",
        retries=0, **QUICK,
    )  # fmt: skip
    running = rack.run(config, "--ollama", script_output("get_ollama", "0.34.0"), "--wait-engine", "1h")
    until("both have begun", lambda: len(begun(program)) >= 2 or not running.is_running(), PATIENCE_S)
    for name in ("a", "b"):
        network.host(name).cut()
    for name in ("a", "b"):
        until(f"{name} has noticed", partial(rack.has_said, name, "has lost"), PATIENCE_S)
    threading.Event().wait(cut_s)
    for name in ("a", "b"):
        network.host(name).join()
    running.wait(PATIENCE_S).must()
    assert [row["status"] for row in program.rows()] == ["ok"] * 6
    counted = program.rows(sql="select status, count(*) as number from attempts group by status")
    assert counted == [{"status": "ok", "number": 6}]
    assert {row["lane"] for row in program.rows()} == {"a", "b"}


def begun(program: Program) -> set[str]:
    """The lanes that have an order."""
    return {file.parent.name for file in program.folder.glob("sweeps.db.lanes/*/order.json")}
