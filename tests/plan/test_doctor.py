"""`doctor`: every check says how it stands and what to do, changes nothing, and ends with the right exit code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import MODEL, RealOllama, Servers, free_port, until
from plain_engine import add_package
from sweep_runner import Ended, Sweep
from sweeping import GRID, Program, json_of
from sweeping import program as program  # a fixture

from ollama_sweep.core.finding import Finding
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.engines.ollama.look import models_folder, of_version
from ollama_sweep.machine import computer
from ollama_sweep.machine.computer import Battery, Busy, ClockPolicy, Gpu, GpuProcess, GpuState, Machine, Orphan
from ollama_sweep.plan.doctor import disturbances, places
from ollama_sweep.plan.doctor import model as checked_model
from ollama_sweep.plan.doctor.model import Length, Subject
from ollama_sweep.plan.ranges import Room
from ollama_sweep.store import file
from ollama_sweep.store.lock import WriterLock

GIB = 1 << 30
NOWHERE = {"OLLAMA_HOST": "127.0.0.1:1"}
"""No server answers there."""
L4 = Gpu("NVIDIA L4", 24 * GIB, 20 * GIB, "580.65")
INFO = ModelInfo("m", "sha256:" + "a" * 64, context_length=8192, size_bytes=GIB, kv_bytes_per_token=1 << 16)
RAM = Room(4 * GIB, GIB, "RAM")


def states(found: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, str(finding.state)) for finding in found]


def only(found: Iterator[Finding]) -> Finding:
    (finding,) = found
    return finding


# -- what would spoil numbers ----------------------------------------------------------------------------------------


def test_a_quiet_processor() -> None:
    assert only(disturbances.of_cpu(Busy(0.02), None, sweep_runs=False)).text == "quiet (2% in use)"


def test_a_busy_processor_names_who_uses_it() -> None:
    found = only(disturbances.of_cpu(Busy(0.5, (("make", 12, 7.9),)), 0.3, sweep_runs=False))
    assert found.state == "warning"
    assert "make (pid 12, 7.9 cores)" in found.text
    assert "30% of the time" in found.text


def test_the_load_of_a_running_sweep_is_nothing_to_warn_of() -> None:
    assert only(disturbances.of_cpu(Busy(1.0), 0.9, sweep_runs=True)).state == "ok"
    hot = [GpuState("0", "L4", 80.0, 0.99, ())]
    assert only(disturbances.of_gpus(hot, [], sweep_runs=True)).state == "ok"


@pytest.mark.parametrize(
    ("available", "pressure", "swap", "expected"),
    [
        (8 * GIB, None, None, [("memory", "ok")]),
        (8 * GIB, 0.0, (0, 8 * GIB), [("memory", "ok")]),
        (GIB, None, None, [("memory", "warning")]),
        (8 * GIB, 0.2, None, [("memory", "warning")]),
        (8 * GIB, None, (4 * GIB, 8 * GIB), [("memory", "ok"), ("swap", "warning")]),
    ],
)
def test_memory(
    available: int, pressure: float | None, swap: tuple[int, int] | None, expected: list[tuple[str, str]]
) -> None:
    machine = Machine("Linux", "CPU", 2, 16 * GIB, available, ())
    assert states(disturbances.of_memory(machine, pressure, swap)) == expected


@pytest.mark.parametrize(
    ("battery", "policy", "expected"),
    [
        (None, None, []),
        (Battery(90, False), None, [("power", "ok")]),
        (Battery(90, True), None, [("power", "warning")]),
        (None, ClockPolicy("powersave", "acpi-cpufreq"), [("clock", "warning")]),
        (None, ClockPolicy("powersave", "intel_pstate", "balance_power"), [("clock", "ok")]),
    ],
)
def test_power(battery: Battery | None, policy: ClockPolicy | None, expected: list[tuple[str, str]]) -> None:
    assert states(disturbances.of_power(battery, policy)) == expected


def test_gpus() -> None:
    gpus = [
        GpuState("0", "L4", 88.0, 0.0, ("heat (hardware)",)),
        GpuState("1", "L4", 40.0, 0.6, ()),
        GpuState("2", "L4", None, None, ()),
    ]
    programs = [GpuProcess(5, "blender", 2 * GIB), GpuProcess(6, "llama-server", GIB), GpuProcess(7, "ollama", None)]
    found = list(disturbances.of_gpus(gpus, programs, sweep_runs=False))
    assert [str(finding.state) for finding in found] == ["warning", "warning", "ok", "warning"]
    assert "heat (hardware)" in found[0].text
    assert "60% busy" in found[1].text
    assert found[3].text == "blender (pid 5) computes on a GPU and holds 2.0 GiB"


def test_a_runner_without_its_ollama() -> None:
    found = only(disturbances.of_orphans([Orphan(77, GIB)], sweep_runs=False))
    assert (found.state, found.hint) == ("warning", "If nobody needs it: kill 77")


@pytest.mark.parametrize(
    ("settings", "state", "words"),
    [
        ({}, "ok", "no variable"),
        ({"OLLAMA_FLASH_ATTENTION": "1"}, "ok", "stored with the results"),
        ({"OLLAMA_NUM_PARALLEL": "1"}, "ok", "OLLAMA_NUM_PARALLEL=1"),
        ({"OLLAMA_NUM_PARALLEL": "4"}, "warning", "4 KV caches"),
        ({"OLLAMA_KV_CACHE_TYPE": "f16"}, "ok", "stored with the results"),
        ({"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "true"}, "ok", "stored with the results"),
        ({"OLLAMA_KV_CACHE_TYPE": "q8_0"}, "warning", "without OLLAMA_FLASH_ATTENTION"),
        ({"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "0"}, "bad", "no model will load"),
        ({"OLLAMA_KV_CACHE_TYPE": "q9"}, "bad", "no type of cache"),
        ({"OLLAMA_LLM_LIBRARY": "cpu"}, "warning", "OLLAMA_LLM_LIBRARY=cpu"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "warning", "hides every GPU"),
        ({"OLLAMA_NOPRUNE": "1"}, "warning", "stay in the model folder"),
        ({"OLLAMA_HOST": "0.0.0.0"}, "warning", "other machines"),
    ],
)
def test_settings_of_ollama(settings: dict[str, str], state: str, words: str) -> None:
    found = next(disturbances.of_settings(settings, [L4], "here"))
    assert found.state == state
    assert words in found.text
    assert found.exit_code == (5 if state == "bad" else 0)


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("0.3.14", "bad"), ("0.4.0", "ok"), ("0.24.0", "ok"), ("0.30.0", None), ("0.30.1", "ok"), ("0.33.2", "ok"),
        ("0.33.3", None), ("0.34.0-rc1", None), ("0.0.0", None), ("", None),
    ],
)  # fmt: skip
def test_versions_whose_rates_are_inflated(version: str, state: str | None) -> None:
    found = list(of_version(version))
    assert [finding.state for finding in found] == ([state] if state else [])
    if state == "ok":
        assert "begins with a new number" in found[0].hint


# -- model, prompt, memory -------------------------------------------------------------------------------------------


def test_a_model_that_is_not_the_one_of_the_last_run() -> None:
    subject = Subject(digests={"m": "sha256:" + "b" * 64})
    assert states(checked_model.of_model(INFO, subject)) == [("model", "ok"), ("model", "warning")]


def test_contexts_beyond_the_training_context() -> None:
    found = list(checked_model.of_model(INFO, Subject(contexts=(4096, 16384, 32768))))
    assert "num_ctx 16384, 32768" in found[1].text
    assert found[1].hint.startswith("End num_ctx at 8192")


def test_a_model_that_cannot_generate() -> None:
    info = ModelInfo("e", "", capabilities=("embedding",))
    assert states(checked_model.of_model(info, Subject())) == [("model", "ok"), ("model", "bad")]


@pytest.mark.parametrize(
    ("contexts", "tokens", "expected", "exit_code"),
    [
        ((512, 1024), 400, ["ok"], 0),
        ((512, 1024), 600, ["warning"], 0),
        ((512, 1024), 2000, ["bad"], 2),
        ((16384,), 9000, ["bad"], 2),
        ((), 400, ["ok"], 0),
    ],
)
def test_the_prompt_fits(contexts: tuple[int, ...], tokens: int, expected: list[str], exit_code: int) -> None:
    found = list(checked_model.of_prompt(INFO, Subject(contexts=contexts), Length(tokens, "counted now")))
    assert [finding.state for finding in found] == expected
    assert max(finding.exit_code for finding in found) == exit_code


def test_an_estimate_is_never_bad() -> None:
    found = only(checked_model.of_prompt(INFO, Subject(contexts=(512,)), Length(900, "estimated", is_estimate=True)))
    assert found.state == "warning"
    assert "about 900 tokens" in found.text


def test_batches_that_the_prompt_does_not_fill() -> None:
    subject = Subject(contexts=(4096,), batches=(512, 1024, 2048))
    found = list(checked_model.of_prompt(INFO, subject, Length(1022, "counted now")))
    assert [finding.state for finding in found] == ["ok", "warning"]
    assert "num_batch 2048 is more than" in found[1].text


@pytest.mark.parametrize(
    ("room", "state", "words"),
    [
        (Room(4 * GIB, GIB, "RAM"), "ok", "num_ctx 8192 needs about 1.5 GiB"),
        (Room(2 * GIB, GIB // 2, "RAM"), "warning", "runs out of memory"),
        (Room(2 * GIB, GIB // 2, "GPU memory", is_gpu=True), "warning", "moves to the CPU"),
        (Room(GIB, 0, "RAM"), "warning", "at every num_ctx"),
    ],
)
def test_the_largest_context_fits_the_memory(room: Room, state: str, words: str) -> None:
    found = only(checked_model.of_memory(INFO, Subject(contexts=(4096, 8192)), room, 1.0))
    assert found.state == state
    assert words in found.text


def test_unknown_metadata_say_nothing_of_memory() -> None:
    assert not list(checked_model.of_memory(ModelInfo("m", ""), Subject(contexts=(4096,)), RAM, 1.0))


# -- disk and database -----------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.mark.parametrize(
    ("free", "importing", "state"),
    [
        (10 << 20, 0, "bad"), (500 << 20, 0, "warning"), (2 * GIB, 0, "ok"),
        (7 * GIB, 4 * GIB, "bad"), (9 * GIB, 4 * GIB, "warning"), (13 * GIB, 4 * GIB, "ok"),
    ],
)  # fmt: skip
def test_disk_space(free: int, importing: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(free, 0, free))
    found = places.of_disk("the database", tmp_path / "not" / "there", importing)
    assert found.state == state
    assert found.exit_code == (4 if state == "bad" else 0)


def test_where_ollama_keeps_its_models(tmp_path: Path) -> None:
    assert models_folder({"OLLAMA_MODELS": "/models"}) == Path("/models")
    (tmp_path / ".ollama" / "models").mkdir(parents=True)
    assert models_folder({"HOME": str(tmp_path)}) == tmp_path / ".ollama" / "models"


def test_a_database_on_a_network_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "file_system", lambda folder: "nfs4")
    found = only(places.of_database(tmp_path / "x.db"))
    assert (found.state, found.exit_code) == ("bad", 2)
    assert "network drive (nfs4)" in found.text
    assert only(places.of_database(tmp_path / "x.db", allow_network=True)).state == "ok"


# -- the whole command -----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's load of the moment is not what is tested."""
    monkeypatch.setattr(computer, "busy", lambda: Busy(0.01))
    monkeypatch.setattr(computer, "orphans", lambda: ())


def run(program: Program, *words: str | Path, **env: str) -> list[dict[str, str]]:
    """What `doctor --json` found, whatever its exit code."""
    found: list[dict[str, str]] = json.loads(program("doctor", *words, "--json", env={**NOWHERE, **env}).stdout)
    return found


def of(found: list[dict[str, str]], check: str) -> list[dict[str, str]]:
    return [entry for entry in found if entry["check"] == check]


def no_ollama(folder: Path) -> dict[str, str]:
    """An environment in which no Ollama is to be found."""
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    return {**NOWHERE, "PATH": str(empty), "XDG_CACHE_HOME": str(empty), "HOME": str(empty)}


def test_without_anything_it_still_works_and_creates_nothing(program: Program) -> None:
    ended = program("doctor", env=no_ollama(program.folder)).must()
    assert "ollama was not found: the embedded llama.cpp (engine llamacpp) would measure" in ended.stdout
    assert "make ollama" in ended.stdout
    assert "none at sweeps.db yet" in ended.stdout
    assert "a sweep can run" in ended.stdout
    assert program.files() == {"empty"}


def test_one_line_for_each_check(program: Program) -> None:
    lines = program("doctor", program.grid(), env=NOWHERE).must().stdout.splitlines()
    *checks, blank, summary = lines
    assert all(line.split()[0] in ("ok", "warning", "bad") for line in checks)
    assert (blank, summary.startswith("0 bad, ")) == ("", True)
    assert summary.endswith(f"plan {program.folder / 'grid.yaml'}")


@pytest.mark.parametrize("engine", ["ollama", "ollama_http"])
def test_without_ollama_a_sweep_that_wants_it_cannot_run(engine: str, program: Program) -> None:
    ended = program("doctor", program.grid(engine=engine), env=no_ollama(program.folder)).must(5)
    assert "bad      ollama    ollama was not found. Install it from ollama.com" in ended.stdout
    assert ended.stderr == "error: bad: ollama\n"


WITH_A_LOOK = """
from ollama_sweep.core.finding import bad, ok
from ollama_sweep.engines import fake
from ollama_sweep.engines.shared.look import Look


class Own(Look):
    environment, origin, may_open = {"OLLAMA_NUM_PARALLEL": "4"}, "of the own server", False

    def findings(self, *, measures):
        yield (bad if "gone" in self._asked.models else ok)("own", f"looked at, measures: {measures}")

    def disks(self, *, measures):
        yield "its own models", __import__("pathlib").Path("models"), 0


class Engine(fake.Engine):
    look = Own
"""


def test_an_engine_of_another_package_is_asked_how_it_stands(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    (program.folder / "with_a_look.py").write_text(WITH_A_LOOK, "utf-8")
    add_package(program.folder, looking="with_a_look")
    monkeypatch.syspath_prepend(str(program.folder))
    found = run(program, program.grid(engine="looking"))
    assert of(found, "own")[0]["text"] == "looked at, measures: True"
    assert of(found, "engine")[0]["text"] == "looking would measure"
    assert "OLLAMA_NUM_PARALLEL=4" in of(found, "settings")[0]["text"]
    assert of(found, "disk")[-1]["text"].endswith("for its own models (models)")
    assert of(found, "model") == []
    ended = program("doctor", program.grid(engine="looking", model="gone"), env=NOWHERE).must(5)
    assert "would measure" not in ended.stdout
    assert of(run(program, program.grid()), "own") == [], "nobody asks an engine that is not to measure"


def test_a_sweep_that_is_well(program: Program) -> None:
    found = run(program, program.grid())
    assert of(found, "sweep")[0]["text"] == "grid: 2 num_ctx x 2 num_batch, 4 cells"
    assert of(found, "engine")[0]["text"].startswith("fake 1.0 would measure")
    assert of(found, "model")[0]["text"].startswith("m: digest fake-m")
    assert of(found, "prompt")[0]["text"] == "9 tokens on m (counted now), fits every num_ctx"
    assert not [entry for entry in found if entry["state"] == "bad"]
    assert program.files() == {"grid.yaml", "journal.txt"}


@pytest.mark.parametrize(
    ("keys", "code", "check", "words"),
    [
        ({"model": "gone"}, 5, "model", "gone is not installed here"),
        ({"num_ctx": [8]}, 2, "prompt", "needs num_ctx 12, and the largest here is 8: no cell can run"),
        ({"num_ctx": "1e3"}, 2, "config", "1e3"),
        ({"engine": "oolama"}, 2, "engine", "Did you mean ollama?"),
        ({"host": "1.2.3.4"}, 2, "server", "is another machine"),
    ],
)
def test_what_is_bad(keys: dict[str, Any], code: int, check: str, words: str, program: Program) -> None:
    program.script(missing_models=["gone"])
    config = program.grid(**keys)
    ended = program("doctor", config, "--json", env=NOWHERE).must(code)
    found = [entry for entry in json.loads(ended.stdout) if entry["state"] == "bad"]
    assert [entry["check"] for entry in found] == [check]
    assert words in found[0]["text"]
    assert ended.stderr.splitlines()[-1] == f"error: bad: {check}"


def test_the_worst_gives_the_exit_code(program: Program) -> None:
    program.script(missing_models=["m"])
    sqlite3.connect(program.folder / "other.db").execute("create table letters (text)").connection.close()
    ended = program("doctor", program.grid(), "--db", "other.db", env=NOWHERE).must(5)
    assert ended.stderr == "error: bad: model, database\n"
    program("doctor", "--db", "other.db", env=NOWHERE).must(3)


def test_a_sweep_file_that_is_missing(program: Program) -> None:
    found = run(program, "nothing.yaml")
    assert (found[0]["check"], found[0]["state"]) == ("config", "bad")
    assert "nothing.yaml: file not found" in found[0]["text"]
    assert len(found) > 5, "the rest is looked at all the same"


def test_the_last_sweep_and_its_database(program: Program) -> None:
    program("run", program.grid(num_ctx=[8, 512])).must()
    program.journal.unlink()
    found = run(program)
    assert of(found, "sweep")[0]["text"].startswith("grid, the one that ran last")
    assert of(found, "model")[0]["text"].startswith("m: ")
    assert "9 tokens on m (counted when it ran last)" in of(found, "prompt")[0]["text"]
    assert "num_ctx 8 are skipped" in of(found, "prompt")[0]["text"]
    assert "is sound" in of(found, "database")[0]["text"]
    assert "sweeps: grid" in of(found, "database")[0]["text"]
    assert program.events("count") == [], "nothing is loaded to learn what is known"
    assert of(run(program, "--model", "other", "--engine", "fake"), "model")[0]["text"].startswith("other: ")


def test_a_prompt_that_was_counted_before_is_not_counted_again(program: Program) -> None:
    config = program.grid()
    program("run", config).must()
    program.journal.unlink()
    assert "(counted by an earlier run)" in of(run(program, config), "prompt")[0]["text"]
    assert program.events("count") == []


def test_beside_a_running_sweep_nothing_is_loaded(program: Program) -> None:
    config = program.grid()
    program("run", config).must()
    program.journal.unlink()
    lock = WriterLock(program.folder / "sweeps.db")
    try:
        other = program.grid("other", prompt={"text": "a new prompt"})
        found = run(program, other)
    finally:
        lock.release()
    assert f"a sweep is running (pid {os.getpid()})" in of(found, "sweep")[1]["text"]
    assert "estimated; `plan` counts them" in of(found, "prompt")[0]["text"]
    assert program.events("count") == []


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"not a database, but long enough to be one " * 40, 4, "is not a SQLite database"),
        (b"", 0, "is an empty file"),
    ],
)
def test_a_file_that_is_no_database(content: bytes, code: int, words: str, program: Program) -> None:
    (program.folder / "sweeps.db").write_bytes(content)
    ended = program("doctor", env=NOWHERE).must(code)
    assert words in ended.stdout
    assert (program.folder / "sweeps.db").read_bytes() == content


def test_a_damaged_database(program: Program) -> None:
    program("run", program.grid(num_batch={"start": 1, "end": 64, "step": 1})).must()
    db = program.folder / "sweeps.db"
    with contextlib.closing(sqlite3.connect(db)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    content = bytearray(db.read_bytes())
    content[3 * 4096 : 9 * 4096] = b"\xff" * (6 * 4096)
    db.write_bytes(content)
    ended = program("doctor", env=NOWHERE).must(4)
    assert "damaged" in ended.stdout


def test_others_can_read_the_database(program: Program) -> None:
    program("run", program.grid()).must()
    (program.folder / "sweeps.db").chmod(0o644)
    found = of(run(program), "database")[-1]
    assert (found["state"], found["hint"]) == ("warning", "chmod 600 sweeps.db")


# -- real ------------------------------------------------------------------------------------------------------------


def where(server: RealOllama) -> list[str]:
    return ["--host", server.host, "--ollama", str(server.binary)]


def real_config(sweep: Sweep, **keys: Any) -> Path:
    grid = {**GRID, "engine": "auto", "model": MODEL, "prompt": {"text": "river stone window " * 200}}
    return sweep.config(**{**grid, "num_batch": [64, 2048], "num_ctx": [512, 1024], **keys})


def assert_untouched(server: RealOllama, sweep: Sweep) -> None:
    assert set(server.installed()) == {f"{MODEL}:latest"}
    assert server.ps() == []
    assert sweep.left_running() == []
    assert not list(sweep.folder.glob("*.db*"))


def checks(ended: Ended) -> dict[str, list[dict[str, str]]]:
    """What was found, by check; the machine's load of the moment left out."""
    found = [entry for entry in json_of(ended) if entry["check"] not in ("cpu", "memory", "left-over")]
    return {entry["check"]: of(found, entry["check"]) for entry in found}


@pytest.mark.real
def test_a_real_server_model_and_prompt(server: RealOllama, sweep: Sweep) -> None:
    found = checks(sweep("doctor", real_config(sweep), *where(server), "--json"))
    assert f"version {server.version}" in found["ollama"][0]["text"]
    assert f"answers at http://{server.host}, version {server.version}" in found["server"][0]["text"]
    assert "Q4_1, trained for 8192 tokens" in found["model"][0]["text"]
    assert server.installed()[f"{MODEL}:latest"][:12] in found["model"][0]["text"]
    assert found["prompt"][0]["state"] == "warning", "the cells of 512 are skipped"
    assert "num_batch 2048" in found["prompt"][1]["text"]
    assert ("rates" in found) is (server.version == "0.33.0")
    assert_untouched(server, sweep)


@pytest.mark.real
def test_settings_of_a_real_server_are_read_where_they_can_be_seen(server: RealOllama, sweep: Sweep) -> None:
    found = checks(sweep("doctor", *where(server), "--json", env={"OLLAMA_NUM_PARALLEL": "7"}))
    assert "OLLAMA_NUM_PARALLEL=1 of the server" in found["settings"][0]["text"]
    assert str(server.models_folder) in found["disk"][1]["text"]
    assert found["models"][0]["text"] == f"1 installed: {MODEL}:latest"


@pytest.mark.real
def test_a_loaded_model_is_named_and_left_alone(real_ollama: Servers, sweep: Sweep) -> None:
    server = real_ollama("0.34.0")
    server.load(MODEL)
    try:
        before = server.only_runner()
        found = checks(sweep("doctor", real_config(sweep), *where(server), "--json"))
        assert found["loaded"][0]["hint"] == f"ollama stop {MODEL}:latest"
        assert "estimated" in found["prompt"][0]["text"]
        assert server.runner_pids() == [before]
    finally:
        server.command("stop", MODEL)
    until("it has ended", lambda: before not in server.runner_pids())


@pytest.mark.real
def test_another_version_of_program_and_server(real_ollama: Servers, sweep: Sweep) -> None:
    old, new = real_ollama("0.33.0"), real_ollama("0.34.0")
    found = checks(sweep("doctor", "--host", old.host, "--ollama", new.binary, "--json"))
    assert found["server"][1]["text"] == "the program is version 0.34.0, the server 0.33.0"


@pytest.mark.real
def test_a_server_of_its_own_for_the_time_of_the_check(real_ollama: Servers, sweep: Sweep, small_model: Path) -> None:
    server = real_ollama("0.34.0")
    models, home = sweep.folder / "models", sweep.folder / "home"
    home.mkdir()
    config = real_config(sweep, model=str(small_model))
    own = {"OLLAMA_MODELS": str(models), "HOME": str(home), "OLLAMA_HOST": f"127.0.0.1:{free_port()}"}
    found = checks(sweep("doctor", config, "--ollama", server.binary, "--json", env=own))
    assert "a sweep starts its own" in found["server"][0]["text"]
    assert "started for this check and stopped again" in found["engine"][0]["text"]
    assert "(counted now)" in found["prompt"][0]["text"]
    assert "importing the .gguf" in found["disk"][1]["text"]
    assert [path for path in (models / "manifests").rglob("*") if path.is_file()] == []
    assert_untouched(server, sweep)


@pytest.mark.real
def test_a_model_that_is_not_installed(server: RealOllama, sweep: Sweep) -> None:
    ended = sweep("doctor", real_config(sweep, model="gone:1b"), *where(server)).must(5)
    assert "gone:1b is not installed here. Run: ollama pull gone:1b" in ended.stdout
    assert_untouched(server, sweep)
