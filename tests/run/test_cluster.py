"""A sweep on the hosts of a cluster: whoever dies and whatever is cut, nothing is lost and nothing counted twice."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from clusters import COORDINATOR, SCHEDULER, WORKER, Cluster, cluster, rack
from namespaces import network
from ollama_fixture import free_port, until
from sweep_runner import Started
from sweeping import Program, label, program

from ollama_sweep.machine.hosts import certificates
from ollama_sweep.run.cluster import sides, ways

RUNS = 4
"""Of each cell: a warm-up and three."""
CELLS = {label(num_ctx, num_batch) for num_ctx in (512, 1024) for num_batch in (2, 4)}


def measured_once(program: Program) -> None:
    """Every cell has its result, of one attempt whose runs were made once."""
    rows = program.rows()
    assert {row["status"] for row in rows} == {"ok"}
    assert program.measured() == dict.fromkeys(CELLS, RUNS)
    counted = program.rows(sql="select status, count(*) as number from attempts group by status")
    assert counted == [{"status": "ok", "number": len(CELLS)}]


def gated(program: Program) -> Path:
    """No run ends before this file is there."""
    gate = program.folder / "output-gate"
    program.script(gate=str(gate))
    return gate


def in_hand(program: Program, count: int) -> None:
    """So many cells are being measured."""
    until(f"{count} cells are measured", lambda: len(program.events("prepare")) >= count)


# -- all is well -------------------------------------------------------------------------------------------------------


def test_the_hosts_of_a_cluster_measure_a_sweep_together(cluster: Cluster, program: Program) -> None:
    cluster.worker("a")
    cluster.worker("b")
    gate = gated(program)
    running = cluster.run(program.grid())
    in_hand(program, 2)
    gate.touch()
    ended = running.wait().must()
    assert "2 lanes: a, b" in ended.stdout
    measured_once(program)
    for name in ("a", "b"):
        left = list(cluster.state(name).rglob("outbox/*"))
        assert left == [], "what is in the database is not kept on the host"
        assert {path.stat().st_mode & 0o077 for path in cluster.state(name).rglob("lanes/*")} == {0}


def test_the_same_command_goes_on_and_measures_nothing_again(cluster: Cluster, program: Program) -> None:
    cluster.worker("a")
    program("run", program.grid(), *cluster.words).must()
    measured_once(program)
    program("run", program.grid(), *cluster.words).must()
    measured_once(program)


def test_a_cluster_on_this_computer_for_one_run(program: Program, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "output-state")}
    ended = program("run", program.grid(), "--cluster", "local:2", env=state).must()
    assert "2 lanes: local0, local1" in ended.stdout
    measured_once(program)
    until("all of it has ended", lambda: not program.left_running())


# -- who dies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", [WORKER, SCHEDULER, COORDINATOR])
def test_whoever_is_killed_in_the_middle_of_a_cell_costs_none(whom: str, cluster: Cluster, program: Program) -> None:
    cluster.worker("a")
    gate, config = gated(program), program.grid()
    running = cluster.run(config)
    in_hand(program, 1)
    cluster.kill(whom, running)
    gate.touch()
    cluster.replace(whom, running, config).wait().must()
    measured_once(program)


def test_a_stop_reaches_a_host_at_once(cluster: Cluster, program: Program) -> None:
    cluster.worker("a")
    gate = gated(program)
    running = cluster.run(program.grid())
    in_hand(program, 1)
    program("stop", "--now").must()
    running.wait()
    gate.touch()
    assert {row["status"] for row in program.rows()} == {"pending"}
    program("run", program.grid(), *cluster.words).must()
    assert {row["status"] for row in program.rows()} == {"ok"}


# -- bad input ---------------------------------------------------------------------------------------------------------


def refused(program: Program, message: str, *words: str, code: int) -> None:
    ended = program("run", program.grid(), *words).must(code)
    assert re.search(message, ended.stderr), ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_what_is_wrong_with_a_cluster_is_one_line(cluster: Cluster, program: Program) -> None:
    where = cluster.address
    tls = ("--tls", "tls/coordinator")
    refused(program, "--cluster: is reached with certificates: make them", "--cluster", where, code=2)
    refused(program, "ftp:// is not spoken here", "--cluster", f"ftp://{where}", *tls, code=2)
    refused(program, "local:N with 1 to 256", "--cluster", "local:0", code=2)
    refused(program, "--cluster: is empty: write HOST:PORT", "--cluster", "", code=2)
    refused(program, "pbs:2: of queues only slurm:N is started here", "--cluster", "pbs:2", code=2)
    refused(program, r"has a path \(/x\), which this server has not", "--cluster", f"{where}/x", *tls, code=2)
    refused(program, "--tls: local:N makes certificates of its own", "--cluster", "local:1", *tls, code=2)
    refused(program, "--insecure: slurm:N makes certificates", "--cluster", "slurm:1", "--insecure", code=2)
    refused(program, "leave out one of --tls and --insecure", "--cluster", where, *tls, "--insecure", code=2)
    refused(program, "--tls: only with --cluster", *tls, code=2)
    refused(program, "--insecure: only with --cluster", "--insecure", code=2)
    refused(program, "file not found", "--cluster", where, "--tls", "nowhere", code=2)
    program("hosts", "init", "other").must()
    refused(program, "certificate of somebody", "--cluster", where, "--tls", "other/worker", code=2)
    line = "does not answer: it wants certificates"
    refused(program, line, "--cluster", where, "--insecure", "--wait-engine", "0s", code=5)
    closed = f"127.0.0.1:{free_port()}"
    refused(program, "nothing listens on that port", "--cluster", closed, *tls, "--wait-engine", "0s", code=5)
    with mock.patch.dict(sys.modules, {"distributed": None}):
        line = r"a cluster needs the package distributed\. Run: pip install 'ollama-sweep\[cluster\]'"
        refused(program, line, "--cluster", where, *tls, code=2)


def test_a_host_of_another_make_is_refused_in_words(cluster: Cluster, program: Program) -> None:
    cluster.worker("a")
    with mock.patch.object(sides, "__version__", "99.0"):
        refused(
            program, r"a has ollama-sweep .*, this computer has 99\.0\. Run on a: pip install", *cluster.words, code=5
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("scheduler", "--listen", "WHERE", "--tls", "tls/coordinator"),
            "cannot listen: another program listens there",
        ),
        (("scheduler", "--listen", "192.0.2.1:1", "--tls", "tls/coordinator"), "this computer has no such address"),
        (("worker", "WHERE", "--tls", "tls/worker", "--name", ""), "--name:  is no name of a host"),
        (("worker", "", "--tls", "tls/worker"), "ADDRESS: is empty; write HOST:PORT"),
    ],
)
def test_what_cannot_be_started_is_one_line(
    words: tuple[str, ...], message: str, cluster: Cluster, program: Program
) -> None:
    there = [cluster.address if word == "WHERE" else word for word in words]
    ended = program.start(*there, env=program.environment()).wait().must(2)
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_a_plain_scheduler_and_one_with_certificates_are_told_apart(cluster: Cluster, program: Program) -> None:
    where = f"127.0.0.1:{free_port()}"
    plain = program.start("scheduler", "--listen", where, "--insecure", env=program.environment())
    until("it listens", lambda: "Listening" in plain.said)
    ways.probe(ways.way_to(where, None, insecure=True, where="--cluster"))
    refused(program, "does not speak TLS: it was started with --insecure", "--cluster", where, "--tls",
            "tls/coordinator", code=2)  # fmt: skip


def test_a_worker_with_a_certificate_of_somebody_else_is_told_so(cluster: Cluster, program: Program) -> None:
    program("hosts", "init", "other").must()
    words = ("worker", cluster.address, "--name", "a", "--tls", "other/worker")
    ended = program.start(*words, env=program.environment()).wait().must(2)
    assert "a certificate of somebody whom this computer does not trust" in ended.stderr


# -- a network that is cut ---------------------------------------------------------------------------------------------


def test_hosts_that_are_cut_off_for_longer_than_a_cell_finish_it_and_hand_it_in(
    rack: Cluster, program: Program
) -> None:
    rack.join("a", "b", "c", "d")
    gate = gated(program)
    running = rack.run(program.grid())
    in_hand(program, 4)
    rack.cut("a", "b")
    gate.touch()
    until("all are finished, also there", lambda: sum(program.measured().values()) == len(CELLS) * RUNS)
    rack.mend("a", "b")
    running.wait().must()
    measured_once(program)


@pytest.mark.slow
def test_a_host_that_comes_and_goes_loses_no_cell(rack: Cluster, program: Program) -> None:
    rack.join("a")
    gate = gated(program)
    running = rack.run(program.grid())
    in_hand(program, 1)
    rack.flap("a", 3)
    gate.touch()
    running.wait().must()
    measured_once(program)


# -- Slurm -------------------------------------------------------------------------------------------------------------

SBATCH = """#!/bin/sh
cp "$1" "$1.job"
setsid sh "$1.job" > "$1.out" 2>&1 &
echo "Submitted batch job $!"
"""


def test_jobs_of_slurm_are_workers_for_the_time_of_a_run(program: Program, tmp_path: Path) -> None:
    """By a queue that starts a job at once, as the two commands of Slurm would."""
    tools = tmp_path / "output-tools"
    tools.mkdir()
    for name, text in {"sbatch": SBATCH, "scancel": '#!/bin/sh\nkill -TERM "-$1"\n'}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    settings = {"DASK_JOBQUEUE__SLURM__CORES": "1", "DASK_JOBQUEUE__SLURM__MEMORY": "1GB"}
    env = {
        **program.environment(), **settings, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "output-state"),
    }  # fmt: skip
    ended = program.start("run", program.grid(), "--cluster", "slurm:1", env=env).wait().must()
    assert "1 lane: slurm0" in ended.stdout
    measured_once(program)
    until("the job has ended", lambda: not program.left_running())


def test_slurm_without_its_package_or_settings_is_one_line(program: Program) -> None:
    line = r"jobqueue\.slurm\.cores is not said; what a job gets here stands in ~/\.config/dask/jobqueue\.yaml"
    refused(program, line, "--cluster", "slurm:2", code=2)
    with mock.patch.dict(sys.modules, {"dask_jobqueue": None, "dask_jobqueue.slurm": None}):
        refused(program, "slurm needs the package dask-jobqueue", "--cluster", "slurm:2", code=2)
