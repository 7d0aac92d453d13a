"""Several lanes on a real Ollama: two managed servers beside each other, and servers that are there already."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from ollama_fixture import MODEL, Servers, script_output, until
from real_sweeps import OF_THE_MACHINE, PATIENCE_S, QUICK
from sweep_runner import Sweep

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

NVIDIA_SMI = """#!/bin/sh
case "$*" in
*name,memory.total*) echo "Scripted, 8192, 8192, 1.0"; echo "Scripted, 8192, 8192, 1.0";;
*) exit 1;;
esac
"""
"""Two GPUs that only their driver knows: Ollama finds none, and computes on the processor."""


def pid_of(sweep: Sweep, lane: str) -> int:
    file = sweep.folder / "sweeps.db.lanes" / lane / "lock"
    return int(file.read_text("ascii")) if file.exists() and file.read_text("ascii").strip() else 0


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="each lane needs a core of its own")
def test_two_managed_servers_measure_one_sweep(small_model: Path, sweep: Sweep) -> None:
    tools, models = sweep.folder / "tools", sweep.folder / "models"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(NVIDIA_SMI, "utf-8")
    (tools / "nvidia-smi").chmod(0o755)
    config = sweep.config(
        model=str(small_model), num_ctx=[512, 1024], num_batch=[32, 64], gpus="all", engine="ollama", interim="off",
        **QUICK,
    )  # fmt: skip
    env = {"OLLAMA_MODELS": str(models), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    words = ("run", config, "--ollama", script_output("get_ollama", "0.34.0"))
    started = sweep.start(*words, env=env)
    until("a lane has begun", lambda: sweep.rows_now("select id from attempts") or not started.is_running(), PATIENCE_S)
    os.kill(pid_of(sweep, "gpu0"), signal.SIGKILL)
    said = started.wait(PATIENCE_S).must().stdout
    assert "2 lanes: gpu0, gpu1" in said

    rows = sweep.rows()
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert all(set(row["flags"].split(",")) <= {*OF_THE_MACHINE, "spilled", "unfilled", ""} for row in rows)
    assert sweep.rows(sql="select count(*) as n from attempts where status = 'ok'") == [{"n": 4}]
    (segment,) = sweep.rows(sql="select fingerprint from segments")
    assert json.loads(segment["fingerprint"])["gpus"] == "Scripted 1.0"
    posts = [
        json.loads(file.read_text("ascii")) for file in sorted(sweep.folder.glob("sweeps.db.lanes/gpu*/post.json"))
    ]
    first, second = (set(post["lane"]["processors"]) for post in posts)
    assert first
    assert second
    assert not first & second
    assert sweep.left_running() == []
    for file in sweep.folder.glob("sweeps.db.lanes/gpu*/ledger.json"):
        assert json.loads(file.read_text("ascii")) == []
    assert not [file for file in (models / "manifests").rglob("*") if file.is_file()]


def test_servers_elsewhere_of_one_version_measure_and_another_one_is_left_out(
    real_ollama: Servers, sweep: Sweep
) -> None:
    new, also_new, old = real_ollama("0.34.0"), real_ollama("0.34.0", num_parallel=2), real_ollama("0.33.0")
    hosts = [{"name": name, "host": one.host} for name, one in (("a", new), ("b", also_new), ("old", old))]
    config = sweep.config(
        model=MODEL, num_ctx=[512, 1024], num_batch=[32, 64], hosts=hosts, engine="ollama_http", interim="off", **QUICK
    )
    said = sweep("run", config, timeout_s=PATIENCE_S).must().stdout
    assert (
        "Whether the lanes a, b, old of one computer disturb each other is not known; measure it: ollama-sweep" in said
    )
    assert "old: left out: is of another class: engine_version 0.33.0, not 0.34.0" in said
    assert [row["status"] for row in sweep.rows()] == ["ok"] * 4
    assert sweep.left_running() == []
    assert all(server.ps() == [] for server in (new, also_new, old))


def test_what_doctor_finds_of_two_lanes_is_on_their_cells(real_ollama: Servers, sweep: Sweep) -> None:
    hosts = [
        {"name": name, "host": real_ollama("0.34.0", num_parallel=number).host} for number, name in enumerate("ab", 1)
    ]
    config = sweep.config(model=MODEL, num_ctx=[512], num_batch=[32, 64], hosts=hosts,
                          engine="ollama_http", interim="off", **QUICK)  # fmt: skip
    (found,) = json.loads(sweep("doctor", config, "--lanes", "--json", timeout_s=PATIENCE_S).must().stdout)
    assert "num_ctx 512, num_batch 32 on a: " in found["text"]
    assert " tokens/s alone, " in found["text"]
    said = sweep("run", config, timeout_s=PATIENCE_S).must().stdout
    are_disturbed = ": neighbours disturb each other" in found["text"]
    assert ("The lanes a, b disturb each other: " in said) == are_disturbed
    assert ("disturb each other is not known" in said) == ("too much chance to say" in found["text"])
    one, other = sweep.rows()
    are_together = one["started_at"] < other["finished_at"] and other["started_at"] < one["finished_at"]
    is_expected = are_disturbed and are_together and one["lane"] != other["lane"]
    assert ["disturbed" in row["flags"].split(",") for row in (one, other)] == [is_expected] * 2


def test_a_server_that_is_down_or_has_not_the_model_is_left_out(real_ollama: Servers, sweep: Sweep) -> None:
    server = real_ollama("0.34.0")
    hosts = [{"name": "down", "host": "127.0.0.1:1"}, {"name": "a", "host": server.host}]
    config = sweep.config(model=MODEL, num_ctx=[512, 1024], num_batch=[32], hosts=hosts, engine="ollama_http",
                          interim="off", **QUICK)  # fmt: skip
    said = sweep("run", config, "--wait-engine", "0", timeout_s=PATIENCE_S).must().stdout
    assert "down: left out: no Ollama server answers at http://127.0.0.1:1. Start it with: ollama serve" in said
    assert [row["status"] for row in sweep.rows()] == ["ok"] * 2

    hosts = [{"name": "a", "host": server.host}, {"name": "down", "host": "127.0.0.1:1"}]
    config = sweep.config("none", model="nope", num_ctx=512, num_batch=32, hosts=hosts, engine="ollama_http", **QUICK)
    refused = sweep("run", config, "--wait-engine", "0").must(5)
    assert "a: nope is not installed here. Run: ollama pull nope" in refused.stderr
