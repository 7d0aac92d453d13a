"""What a sweep needs for itself: its server, and this computer's GPUs or else its processor."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import platform
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ollama_fixture import until
from openai_server import Scripted, chunk, end, scripted_server, stream, usage
from sweep_runner import ONE_LOAD
from sweeping import Program, program

from ollama_sweep.engines.base import EngineInfo
from ollama_sweep.machine import ports
from ollama_sweep.machine.computer import Gpu
from ollama_sweep.plan.spec import PromptSpec, SweepSpec
from ollama_sweep.run.claims import needs

L4, A2 = Gpu("NVIDIA L4", 24 << 30, 20 << 30, "550"), Gpu("NVIDIA A2", 16 << 30, 9 << 30, "550")
GPU_0, GPU_1, PROCESSOR = "GPU 0 (NVIDIA L4)", "GPU 1 (NVIDIA A2)", "This computer's processor"
HERE = "http://127.0.0.1:11434"
SERVER = f"The server at {HERE}"
NVIDIA_SMI = """#!/bin/sh
case $1 in --query-gpu=name,memory.total,memory.free,driver_version) echo 'NVIDIA GB10, [N/A], [N/A], 580.95';; esac
"""
WHOLE = stream(chunk("Hello"), end(), usage(12, 2))


def claimed(
    where: str, gpus: tuple[Gpu, ...] = (), engine: str = "ollama", given: str | None = None, server: str = "found"
) -> list[str]:
    spec = SweepSpec(model="m", dimensions={}, prompt=PromptSpec("a"), host=given)
    return list(needs(spec, EngineInfo(engine, "1", where, {"server": server}), lambda: gpus).values())


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of the server that is asked for."""
    of_the_server: dict[str, str] = {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(ports, "server_settings", lambda port: of_the_server or None)
    return of_the_server


@pytest.mark.parametrize(
    ("engine", "where", "server", "expected"),
    [
        ("ollama", HERE, "found", [SERVER, PROCESSOR]),
        ("ollama", HERE, "own", [PROCESSOR]),
        ("ollama_http", HERE, "found", [SERVER, PROCESSOR]),
        ("openai", "http://localhost:1234/v1", "llama-server", ["The server at http://localhost:1234/v1", PROCESSOR]),
        ("lmstudio", "http://[::1]:1234/v1", "", ["The server at http://[::1]:1234/v1", PROCESSOR]),
        ("openai", "http://127.0.0.2:8080/v1", "unknown", ["The server at http://127.0.0.2:8080/v1", PROCESSOR]),
        ("openai", "https://api.example.com/v1", "unknown", ["The server at https://api.example.com/v1"]),
        ("ollama", "http://10.0.0.7:11434", "found", ["The server at http://10.0.0.7:11434"]),
        ("llamacpp", "embedded", "", [PROCESSOR]),
        ("sentence_transformers", "embedded", "", [PROCESSOR]),
        ("fake", "in this process", "", []),
    ],
)
def test_what_each_engine_needs(
    engine: str, where: str, server: str, expected: list[str], settings: Mapping[str, str]
) -> None:
    assert claimed(where, engine=engine, server=server) == expected


@pytest.mark.parametrize(
    ("where", "visible", "expected"),
    [
        ("embedded", None, [GPU_0, GPU_1]),
        ("embedded", "1", [GPU_1]),
        ("embedded", "1,0", [GPU_1, GPU_0]),
        ("embedded", "-1", [PROCESSOR]),
        (HERE, "0", [SERVER, GPU_0]),
        ("http://10.0.0.7:11434", "0", ["The server at http://10.0.0.7:11434"]),
    ],
)
def test_the_gpus_that_are_used_stand_for_the_processor(
    where: str,
    visible: str | None,
    expected: list[str],
    settings: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_embedded = where == "embedded"
    if visible is not None and is_embedded:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    elif visible is not None:
        settings["CUDA_VISIBLE_DEVICES"] = visible
    assert claimed(where, (L4, A2), "llamacpp" if is_embedded else "ollama") == expected


@pytest.mark.parametrize("given", ["127.0.0.1:11434", HERE, "http://10.0.0.7:11434"])
def test_a_host_that_an_embedded_engine_does_not_use_changes_nothing(given: str, settings: Mapping[str, str]) -> None:
    assert claimed("embedded", (L4,), "llamacpp", given) == [GPU_0]


def test_a_server_and_an_embedded_engine_on_one_gpu_are_in_each_others_way(settings: Mapping[str, str]) -> None:
    spec = SweepSpec(model="m", dimensions={}, prompt=PromptSpec("a"))
    needed = [
        set(needs(spec, EngineInfo(name, "1", where, {}), lambda: (L4,)))
        for name, where in (("ollama", HERE), ("llamacpp", "embedded"), ("openai", "http://127.0.0.1:8080/v1"))
    ]
    assert set.intersection(*needed) == {f"{platform.node()} gpu 0"}


# Refused in earnest


@pytest.fixture
def servers() -> Iterator[tuple[Scripted, Scripted]]:
    """Two servers on this computer that answer chats."""
    with scripted_server() as one, scripted_server() as other:
        for server in (one, other):
            server.chat(WHOLE)
        yield one, other


@pytest.mark.parametrize("driver", ["", NVIDIA_SMI], ids=["processor", "gpu of unknown memory"])
def test_a_second_sweep_on_the_same_hardware_is_refused_unless_told_otherwise(
    driver: str, program: Program, servers: tuple[Scripted, Scripted]
) -> None:
    tools = program.folder / "bin"
    tools.mkdir()
    if driver:
        (tools / "nvidia-smi").write_text(driver, "utf-8")
        (tools / "nvidia-smi").chmod(0o755)
    alone = {"OLLAMA_SWEEP_SHARE_SERVER": "0", "XDG_CACHE_HOME": str(program.folder / "cache"), "PATH": f"{tools}:/bin"}
    config = program.config(model="small-model", engine="openai", task="chat", num_predict=2, warmup=0, repeats=1,
                            **ONE_LOAD)  # fmt: skip
    answer = threading.Event()
    servers[0].chat(stream(chunk("Hello"), end(), usage(12, 2), done=False, wait=answer))
    first = program.start("run", config, "--host", servers[0].host, "--db", "one.db", env=alone)
    until("the first sweep measures", lambda: servers[0].bodies("/v1/chat/completions") or not first.is_running())

    second = ("run", config, "--host", servers[1].host, "--db", "two.db")
    refused = program(*second, env=alone).must(3)
    what = "GPU 0 (NVIDIA GB10)" if driver else "This computer's processor"
    assert refused.stderr.startswith(f"error: {what} is in use by another sweep (pid {first.pid} since ")
    assert f"database {program.folder / 'one.db'}" in refused.stderr
    assert "--share-server" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (program.folder / "two.db").exists()
    assert servers[1].bodies("/v1/chat/completions") == []
    program(*second, "--share-server", env=alone).must()
    assert first.is_running()
    first.kill()
    first.wait()
    program("run", config, "--host", servers[1].host, "--db", "three.db", env=alone).must()
