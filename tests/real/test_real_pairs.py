"""Two versions of a real Ollama in turns, each with a server of its own: killed in the middle, and gone on with."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from ollama_fixture import script_output, until
from real_sweeps import PATIENCE_S
from sweep_runner import ONE_LOAD, Sweep

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

WRAPPER = """#!/bin/sh
if [ "$1" != serve ]; then exec {binary} "$@"; fi
exec {binary} "$@" >> {log} 2>&1
"""
"""An ollama whose log outlives it."""
LOADS = """select substr(sweeps.name, -1) || num_batch as load, attempts.status, fingerprint
    from attempts join sweeps on sweeps.id = sweep_id join cells on cells.id = cell_id
    join segments on segments.id = attempts.segment_id order by attempts.id"""


def test_two_versions_take_turns_also_after_a_kill(small_model: Path, sweep: Sweep) -> None:
    programs = []
    for version in ("0.33.0", "0.34.0"):
        binary, program = script_output("get_ollama", version), sweep.folder / f"ollama-{version}"
        log = shlex.quote(str(sweep.folder / "serve.log"))
        program.write_text(WRAPPER.format(binary=shlex.quote(str(binary)), log=log), "utf-8")
        program.chmod(0o755)
        programs.append(str(program))
    config = sweep.config(
        "versions", model=str(small_model), prompt={"text": "Name three rivers."}, num_ctx=[256], num_batch=[16, 32],
        pair={"ollama": programs}, server="managed", engine="ollama", num_thread=1, warmup=0, repeats=1, interim="off",
        **ONE_LOAD,
    )  # fmt: skip
    env = {"OLLAMA_MODELS": str(sweep.folder / "models")}
    started = sweep.start("run", config, env={**env, "SWEEP_CRASH_AT": "after_finish:2"})
    until("it dies in the second turn", lambda: not started.is_running(), PATIENCE_S)
    sweep("run", config, env=env, timeout_s=PATIENCE_S).must()

    found = [(row["load"], json.loads(row["fingerprint"])["engine_version"])
             for row in sweep.rows(sql=LOADS) if row["status"] == "ok"]  # fmt: skip
    assert found == [("a16", "0.33.0"), ("b16", "0.34.0"), ("b32", "0.34.0"), ("a32", "0.33.0")]
    assert len({row["key"] for row in sweep.rows(sql="select key from cells")}) == 4
    compared = json.loads(sweep("compare", "versions.a", "versions.b", "--json").must().stdout)
    assert (compared["pair"], compared["parts"][0]["in_turns"]) == ("versions", True)
    assert any("engine_version 0.33.0 -> 0.34.0" in note for note in compared["notes"])
    assert sweep.left_running() == []
    assert sweep.rows(sql="select * from ledger") == []
