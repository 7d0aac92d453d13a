"""Settings of a server as a dimension on a real Ollama: the sweep's own server is started anew for each of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from ollama_fixture import script_output
from real_sweeps import OF_THE_MACHINE, PATIENCE_S
from sweep_runner import ONE_LOAD, Sweep

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

WRAPPER = """#!/bin/sh
if [ "$1" != serve ]; then exec {binary} "$@"; fi
echo "${{OLLAMA_KV_CACHE_TYPE:-none}} ${{OLLAMA_FLASH_ATTENTION:-none}}" >> {starts}
exec {binary} "$@" >> {log} 2>&1
"""
"""An ollama whose starts are counted and whose log outlives it."""


def test_each_kv_cache_type_has_a_server_of_its_own(small_model: Path, sweep: Sweep) -> None:
    binary = script_output("get_ollama", "0.34.0")
    starts, log, ollama, models = (sweep.folder / name for name in ("starts.txt", "serve.log", "ollama", "models"))
    paths = {"binary": binary, "starts": starts, "log": log}
    ollama.write_text(WRAPPER.format(**{name: shlex.quote(str(path)) for name, path in paths.items()}), "utf-8")
    ollama.chmod(0o755)
    config = sweep.config(
        model=str(small_model), prompt={"text": "Name three rivers. " * 20}, num_ctx=[1024], num_batch=[64],
        kv_cache_type=["f16", "q8_0"], flash_attention=True, server="managed", engine="ollama",
        num_thread=1, warmup=0, repeats=1, **ONE_LOAD,
    )  # fmt: skip
    sweep("run", config, "--ollama", ollama, env={"OLLAMA_MODELS": str(models)}, timeout_s=PATIENCE_S).must()

    rows = sweep.rows()
    assert [(row["kv_cache_type"], row["status"]) for row in rows] == [("f16", "ok"), ("q8_0", "ok")]
    assert {flag for row in rows for flag in row["flags"].split(",") if flag} <= OF_THE_MACHINE
    for_the_count, *of_cells = starts.read_text("utf-8").splitlines()
    assert (for_the_count, of_cells) == ("none none", ["f16 1", "q8_0 1"])
    commands = re.findall(r'msg="starting llama-server" cmd="(.*)"', log.read_text("utf-8", "replace"))
    assert [cache_of(command) for command in commands if "-c 1024 " in command] == [
        ("f16", "f16", "on"), ("q8_0", "q8_0", "on"),
    ]  # fmt: skip
    assert sweep.left_running() == []
    assert sweep.rows(sql="select * from ledger") == []
    assert not [file for file in (models / "manifests").rglob("*") if file.is_file()]


def cache_of(command: str) -> tuple[str, ...]:
    """What llama-server was told of its cache of keys and of values, and of flash attention."""
    return tuple(re.findall(r"--(?:cache-type-k|cache-type-v|flash-attn) (\S+)", command))
