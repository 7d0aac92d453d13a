"""A server on another machine or in a container: no program is needed here, and nothing here stands for its machine."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ollama_fixture import free_port
from openai_server import Scripted, chunk, end, said, scripted_server, stream, usage
from sweep_runner import ONE_LOAD
from sweeping import Program, json_of, program

from ollama_sweep import engines
from ollama_sweep.core.errors import ConfigError, EngineMissing, EngineUnavailable
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.machine import computer, ports

NVIDIA_SMI = """#!/bin/sh
case $1 in
*name,memory*) echo 'NVIDIA L4, 23034, 20000, 550.54';;
*=index) echo 0;;
*utilization*) echo '0, NVIDIA L4, 84, 97, 0x0000000000000040';;
*power.draw*) echo '0, 61.25, 1024, 0x0000000000000040';;
esac
"""
"""A driver of this machine, with a GPU that is hot."""


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment without an `ollama` to be found, also for engines that a test makes itself."""
    empty = tmp_path / "empty"
    empty.mkdir()
    found = dict.fromkeys(("PATH", "XDG_CACHE_HOME", "HOME"), str(empty))
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    return found


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's load of the moment is not what is tested."""
    monkeypatch.setattr(computer, "busy", lambda: computer.Busy(0.01))


@pytest.fixture
def server() -> Iterator[Scripted]:
    """An Ollama server with one model `m`."""
    with scripted_server() as made:
        models = {"models": [{"name": "m:latest", "model": "m:latest", "digest": "ab", "size": 1}]}
        done = {"done": True, "prompt_eval_count": 12, "prompt_eval_duration": 5, "prompt_eval_cached_count": 0}
        made.replies = {
            "/api/version": [said({"version": "0.34.0"})],
            "/api/tags": [said(models)],
            "/api/ps": [said({"models": []})],
            "/api/show": [said({"capabilities": ["completion"], "details": {}, "model_info": {}})],
            "/api/generate": [said(done)],
        }
        yield made


# -- which engine, and what is needed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "variable", "chosen"),
    [
        (True, None, "ollama_http"),
        (False, True, "ollama_http"),
        (False, None, "llamacpp"),
        (False, "127.0.0.1:1", "llamacpp"),  # nobody answers: it may be there for a server that is to be started
        (False, "10.255.255.1", "ollama_http"),
    ],
)
def test_auto_without_a_program_takes_the_server_that_is_named(
    given: bool,
    variable: bool | str | None,
    chosen: str,
    nothing_here: dict[str, str],
    server: Scripted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if variable is not None:
        monkeypatch.setenv("OLLAMA_HOST", server.host if variable is True else str(variable))
    host = server.host if given else None
    assert engines.choose(EngineSettings(host=host, allow_remote=True)) == chosen
    assert engines.choose(EngineSettings(host=host, allow_remote=True, ollama="/bin/true")) == "ollama"
    assert engines.choose(EngineSettings(host=host, allow_remote=True, managed=True)) == "llamacpp"


def test_another_machine_is_still_asked_for_by_name(
    nothing_here: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "gpu-box")
    with pytest.raises(ConfigError, match=r"gpu-box is another machine.*--remote"):
        engines.choose(EngineSettings())


def test_a_server_that_answers_needs_no_program(nothing_here: dict[str, str], server: Scripted) -> None:
    with contextlib.closing(engines.load("ollama_http", EngineSettings(host=server.host))) as engine:
        info = engine.describe()
        assert (info.where, info.details) == (f"http://{server.host}", {"server": "found"})
        assert engine.models() == ("m:latest",)
        assert engine.clear(Leftover(1, "loaded_model", "m", {})) is None
        assert server.bodies("/api/generate")[-1] == {"model": "m", "keep_alive": 0}


@pytest.mark.parametrize("engine", ["ollama", "ollama_http"])
def test_without_a_program_and_without_a_server_the_program_is_missing(
    engine: str, nothing_here: dict[str, str]
) -> None:
    made = engines.load(engine, EngineSettings(managed=True))
    with contextlib.closing(made), pytest.raises(EngineMissing, match=r"^ollama was not found. Install it from [^:]*$"):
        made.describe()


def test_a_server_that_is_away_is_waited_for_and_no_own_one_is_started(nothing_here: dict[str, str]) -> None:
    host = f"127.0.0.1:{free_port()}"
    made = engines.load("ollama_http", EngineSettings(host=host))
    with contextlib.closing(made), pytest.raises(EngineUnavailable, match=f"no Ollama server answers at http://{host}"):
        made.describe()


@pytest.mark.parametrize("word", ["run", "plan"])
def test_the_engine_that_needs_a_program_says_the_way_out(
    word: str, program: Program, nothing_here: dict[str, str], server: Scripted
) -> None:
    config = program.grid(engine="ollama", host=server.host)
    refused = program(word, config, env=nothing_here).must(5).stderr.splitlines()
    assert len(refused) == 1
    assert refused[0].startswith("error: ollama was not found.")
    assert f"http://{server.host} can be measured without it: --engine ollama_http" in refused[0]
    assert program.files() == {"grid.yaml", "empty"}


@pytest.mark.parametrize(("engine", "code"), [("auto", 0), ("ollama_http", 0), ("ollama", 5)])
def test_doctor_knows_who_needs_a_program(
    engine: str, code: int, program: Program, nothing_here: dict[str, str], server: Scripted
) -> None:
    ended = program("doctor", program.grid(engine=engine, host=server.host), env=nothing_here).must(code)
    if code:
        assert "--engine ollama_http" in ended.stdout
    else:
        assert "none is needed to measure a server" in ended.stdout
        assert f"ollama_http 0.34.0 would measure (http://{server.host})" in ended.stdout


# -- what is not known of it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "listeners", "is_elsewhere"),
    [
        ("http://10.0.0.7:11434", ["ollama"], True),
        ("https://api.example.com/v1", [], True),
        ("http://127.0.0.1:11434", ["ollama"], False),
        ("http://[::1]:11434", ["python3"], False),
        ("http://localhost:11434", [], False),  # another user's, which may not be seen
        ("http://127.0.0.1:11434", ["docker-proxy", "docker-proxy"], True),
        ("http://127.0.0.1:11434", ["ssh"], True),
        ("http://127.0.0.1:11434", ["rootlessport"], True),
        ("http://127.0.0.1:11434", ["nginx", "ollama"], False),
    ],
)
def test_where_a_server_is(url: str, listeners: list[str], is_elsewhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that passes requests on is no engine: its memory is not told as the engine's."""

    class Named:
        def __init__(self, pid: int) -> None:
            self.pid = pid

        def name(self) -> str:
            return listeners[self.pid]

    monkeypatch.setattr(ports, "_listeners", lambda port: dict.fromkeys(range(len(listeners))))
    monkeypatch.setattr(psutil, "Process", Named)
    assert ports.is_elsewhere(url) is is_elsewhere
    is_here = not is_elsewhere and bool(listeners)
    assert (ports.serving_pid(url) is not None) is is_here


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server with an address is on another machine."""
    monkeypatch.setattr(ports, "is_elsewhere", lambda url: True)
    monkeypatch.setattr(ports, "listening_on", lambda address: ())


def test_nothing_of_this_machine_stands_for_that_of_the_server(
    program: Program, server: Scripted, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine has a hot GPU that takes power; the server's is not known."""
    tools = program.folder / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(NVIDIA_SMI, "utf-8")
    (tools / "nvidia-smi").chmod(0o755)
    server.replies = {"/v1/models": [said({"data": [{"id": "small-model"}]})]}
    server.chat(stream(chunk("Hello"), end(), usage(12, 2)))
    config = program.config(model="small-model", engine="openai", task="chat", host=server.host, warmup=0, repeats=1,
                            wait_for_idle_gpu=True, **ONE_LOAD)  # fmt: skip
    ended = program("run", config, env={"PATH": f"{tools}:/bin"}).must()
    where = f"http://{server.host}/v1"
    assert f"Machine: unknown machine at {where}" in ended.stdout
    assert "wait_for_idle_gpu waits for nothing" in ended.stdout
    (row,) = program.rows()
    assert (row["status"], row["flags"]) == ("ok", "")
    assert {"peak_rss_bytes", "energy_j", "throttled_s"}.isdisjoint(row)
    (segment,) = program.rows(sql="select fingerprint from segments")
    assert set(json.loads(segment["fingerprint"])) == {"engine", "engine_version", "server"}
    assert json_of(program("status", "--json"))["machine"] == f"unknown machine at {where}"


def test_doctor_and_params_say_nothing_of_this_machine(
    program: Program, server: Scripted, nothing_here: dict[str, str], elsewhere: None
) -> None:
    found = json_of(program("doctor", "--host", server.host, "--model", "m", "--json", env=nothing_here))
    checks = {entry["check"] for entry in found}
    assert checks.isdisjoint({"cpu", "memory", "swap", "power", "clock", "gpu", "fit", "settings"})
    assert "not known from here" in next(entry["text"] for entry in found if entry["check"] == "machine")
    assert "Ollama's models" not in " ".join(entry["text"] for entry in found)
    params = json_of(program("params", "m", "--host", server.host, "--json", env=nothing_here))
    assert (params["free_bytes"], params["memory"]) == (None, "the server's memory")
