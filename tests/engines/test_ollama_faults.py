"""Sweeps on a scripted `ollama`: failures of its command line, a server that is stuck, dies or is brought back."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ollama_fixture import marked, until
from ollama_sweeps import check_nothing_left, grid, history, last_line, ollama, run, short_waits, shown
from scripted_ollama import FOR_EVER, MODEL, ScriptedOllama
from sweeping import Program, program

from ollama_sweep.core.ledger import Leftover
from ollama_sweep.engines.ollama import engine as engine_of_the_command_line
from ollama_sweep.engines.ollama import programs, server
from ollama_sweep.engines.shared.leftovers import end_process
from ollama_sweep.machine import process
from ollama_sweep.machine.computer import Orphan
from ollama_sweep.store.reader import Reader

PROMPT_TOKENS = 9
OWN = "ollama-sweep-scratch-"


def test_a_sweep_on_the_scripted_program(program: Program, ollama: ScriptedOllama) -> None:
    run(program, ollama, num_ctx=[512, 1024]).must()
    assert [row["status"] for row in program.rows()] == ["ok", "ok"]
    assert {row["prompt_eval_count"] for row in program.rows()} == {PROMPT_TOKENS}
    assert [row["effective_num_ctx"] for row in program.rows()] == [512, 1024]
    check_nothing_left(program, ollama)


# -- the command line's failures ---------------------------------------------------------------------------------------


def test_create_fails(program: Program, ollama: ScriptedOllama) -> None:
    ollama.script(create=[{}, {"exit": 1, "says": "Error: no space left on device"}])
    run(program, ollama).must()
    (row,) = program.rows()
    assert (row["status"], row["reason"], row["error"]) == ("error", "create", "no space left on device")
    assert history(program) == [("error", "create")] * 2, "tried once more"
    check_nothing_left(program, ollama)


@pytest.mark.parametrize("code", [0, 1])
def test_create_ends_half_done(program: Program, ollama: ScriptedOllama, code: int) -> None:
    """Without `success` there is no telling what was made: it is made again, and removed in the end."""
    half = {"exit": code, "says": "transferring model data", "makes": True}
    ollama.script(create=[{}, half, {}])
    run(program, ollama).must()
    assert history(program) == [("error", "create"), ("ok", "")]
    assert "transferring model data" in raw(program, 1)
    assert len(ollama.did("create")) == 3
    check_nothing_left(program, ollama)


def test_create_fails_before_the_first_cell(program: Program, ollama: ScriptedOllama) -> None:
    """Where even the prompt cannot be counted."""
    ollama.script(create=[{"exit": 1, "says": "Error: no space left on device"}])
    ended = run(program, ollama).must(5)
    assert last_line(ended) == "error: the prompt's tokens cannot be counted on m: no space left on device"
    assert ollama.models() == {f"{MODEL}:latest"}


DIED = {
    'Error: POST predict: Post "http://127.0.0.1:39789/completion": EOF': ("crashed", "runner_died"),
    "Error: cudaMalloc failed: out of memory\nError: llama runner process has terminated": ("oom", "cuda_oom"),
    "ggml_vulkan: Failed to allocate pinned memory.\nError: GGML_ASSERT(n_tokens_all) failed": ("crashed", "assert"),
}


def test_what_a_run_died_of(program: Program, ollama: ScriptedOllama) -> None:
    """A runner's end is no server's, every message is read, and a warning is not the reason."""
    ollama.script(run=[{"exit": 1, "says": text} for text in DIED])
    run(program, ollama, num_ctx=[512, 1024, 2048], retries=0).must()
    assert history(program) == list(DIED.values())


BROKEN: dict[str, tuple[dict[str, Any], tuple[str, str], str]] = {
    "statistics and exit code 1": ({"exit": 1}, ("error", "unknown"), "prompt eval count"),
    "no statistics": ({"says": ""}, ("error", "no_statistics"), "Hello."),
    "no prompt count": ({"without": ["prompt eval count"]}, ("parse_error", "count_missing"), "prompt eval duration"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_run_that_is_not_believed(program: Program, ollama: ScriptedOllama, kind: str) -> None:
    """Its value is not used, all that it printed is kept, and it is tried once more."""
    step, failure, printed = BROKEN[kind]
    ollama.script(run=[step])
    run(program, ollama).must()
    (row,) = program.rows()
    assert (row["status"], row["reason"], row["prompt_eval_rate"]) == (*failure, None)
    assert history(program) == [failure] * 2
    assert all(printed in raw(program, number) for number in (1, 2))
    assert set(ollama.did("unload")) >= set(ollama.did("load")), "brought to rest after each"

    ollama.script()
    run(program, ollama, "--retry", failure[0]).must()
    assert program.rows()[0]["prompt_eval_count"] == PROMPT_TOKENS
    check_nothing_left(program, ollama)


def raw(program: Program, attempt: int) -> str:
    """All that is kept of what was printed in an attempt."""
    with Reader.open(program.folder / "sweeps.db") as reader:
        return "".join(reader.raw_outputs(attempt).values())


def test_a_bug_in_the_reading_of_statistics_keeps_what_was_printed(
    program: Program, ollama: ScriptedOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(text: str) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(engine_of_the_command_line, "statistics", stumble)
    run(program, ollama).must()
    assert history(program) == [("error", "parser")] * 2
    assert "list index out of range" in program.rows()[0]["error"]
    assert "prompt eval count" in raw(program, 1)


def test_ctrl_c_twice_during_create(program: Program, ollama: ScriptedOllama) -> None:
    ollama.script(create=[{}, {"hangs": True}])
    started = program.start("run", grid(program), *ollama.options())
    until("the second create", lambda: len(ollama.did("create")) == 2)
    started.kill(signal.SIGINT)
    until("it was heard", lambda: "Stopping after this cell" in shown(program))
    started.kill(signal.SIGINT)
    started.wait().must(130)
    assert history(program) == [("interrupted", "stopped")]
    check_nothing_left(program, ollama)

    ollama.script()
    run(program, ollama).must()
    assert history(program)[1:] == [("ok", "")]


# -- refused before the first cell -------------------------------------------------------------------------------------


def test_a_version_that_is_too_old(program: Program, ollama: ScriptedOllama) -> None:
    ollama.script(version="0.3.14")
    ended = run(program, ollama).must(5)
    assert ended.stderr == "error: Ollama 0.3.14 is too old (need 0.4.0 or newer)\n"
    assert not ollama.did("create")


def test_another_machine_is_refused_without_remote(program: Program, ollama: ScriptedOllama) -> None:
    ended = run(program, ollama, "--host", "192.0.2.7").must(2)
    assert last_line(ended) == (
        "error: host: 192.0.2.7 is another machine; numbers would be its, not this one's. Use --remote"
    )
    assert not (program.folder / "sweeps.db").exists()


def test_a_prompt_that_names_a_picture_is_refused(program: Program, ollama: ScriptedOllama) -> None:
    picture = program.folder / "cat.png"
    picture.write_bytes(b"")
    keys = {"prompt": {"text": f"What is on {picture} here?"}}
    ollama.script(capabilities=["completion", "vision"])
    ended = run(program, ollama, **keys).must(2)
    assert ended.stderr.count("\n") == 1
    assert f"Ollama would load {picture} as a picture or sound" in ended.stderr
    assert not ollama.did("run")

    ollama.script()
    run(program, ollama, **keys).must()


def test_plan_says_which_parameters_of_the_modelfile_are_replaced(program: Program, ollama: ScriptedOllama) -> None:
    (program.folder / "Modelfile").write_text("FROM x\nPARAMETER num_ctx 9\nPARAMETER top_k 5\n", "utf-8")
    said = program("plan", grid(program, modelfile="Modelfile"), *ollama.options()).must().stdout
    assert "The Modelfile sets num_ctx; the sweep's own values are used" in said
    assert ollama.models() == {f"{MODEL}:latest"}


# -- a server that is stuck --------------------------------------------------------------------------------------------


def test_nothing_starts_beside_a_model_that_cannot_be_unloaded(program: Program, ollama: ScriptedOllama) -> None:
    ollama.script(run=[{"exit": 1}, {}], keeps=FOR_EVER)
    ended = run(program, ollama, "--wait-engine", "0.2", num_ctx=[512, 1024]).must(5)
    stuck = f"the Ollama server at http://{ollama.host} is stuck with a model; it needs a restart"
    assert last_line(ended) == f"error: {stuck}"
    assert "The engine answers again" not in ended.stdout + ended.stderr
    assert len(ollama.did("run")) == 1, "no cell beside it"
    assert ollama.models() == {f"{MODEL}:latest"}

    again = run(program, ollama, "--wait-engine", "0.2", num_ctx=[512, 1024]).must(5)
    assert last_line(again) == f"error: {stuck}"
    assert len(ollama.did("run")) == 1, "nor in the next session"

    ollama.script()
    ollama.kill()
    ollama.serve()
    run(program, ollama, num_ctx=[512, 1024]).must()
    assert [row["status"] for row in program.rows()] == ["ok", "ok"]
    check_nothing_left(program, ollama)


def test_it_goes_on_once_the_model_is_gone(program: Program, ollama: ScriptedOllama) -> None:
    ollama.script(run=[{"exit": 1}, {}], keeps=10)
    said = run(program, ollama, num_ctx=[512, 1024]).must()
    assert "is stuck with a model" in said.stdout + said.stderr
    assert "The engine answers again" in said.stdout + said.stderr
    assert history(program) == [("error", "unknown"), ("ok", ""), ("ok", "")]


# -- restart_command ---------------------------------------------------------------------------------------------------

DIES = [{"dies": True}, {}]
HANGS = "import time; time.sleep(600)"


def restart_forms(ollama: ScriptedOllama) -> dict[str, list[str]]:
    serve = [str(ollama.binary), "serve"]
    return {"in the foreground": serve, "in the background": ["sh", "-c", f"{' '.join(serve)} &"]}


@pytest.mark.parametrize("form", ["in the foreground", "in the background"])
def test_a_server_that_was_restarted_survives_the_sweep(program: Program, ollama: ScriptedOllama, form: str) -> None:
    words = restart_forms(ollama)[form]
    ollama.script(run=DIES)
    started = program.start("run", grid(program, restart_command=words), *ollama.options())
    ended = started.wait().must()
    assert f"Restarting Ollama: {' '.join(words)}" in ended.stdout + ended.stderr
    assert history(program) == [("error", "engine_died"), ("ok", "")]
    assert [line.split()[-2:] for line in program.left_running()] == [[str(ollama.binary), "serve"]]
    assert len(ollama.did("serve")) == 2
    assert ollama.models() == {f"{MODEL}:latest"}


def test_a_stuck_server_is_restarted(program: Program, ollama: ScriptedOllama) -> None:
    """The old one still answers, so an answer alone does not mean that it is back."""
    kill = f"kill -9 $(cat {ollama.folder / 'pid'})"
    words = ["sh", "-c", f"{kill}; {ollama.binary} serve &"]
    ollama.script(run=[{"exit": 1}, {}], keeps=FOR_EVER)
    run(program, ollama, num_ctx=[512, 1024], restart_command=words).must()
    assert history(program) == [("error", "unknown"), ("ok", ""), ("ok", "")]
    assert len(ollama.did("serve")) >= 2


FAILING = {
    "it fails": (
        ["sh", "-c", "echo first; echo no such unit >&2; exit 3"],
        "restart_command ended with 3: no such unit",
    ),
    "it fails in silence": (["sh", "-c", "exit 4"], "restart_command ended with 4: it said nothing"),
    "it cannot be run": (
        ["/nowhere/restart"],
        "restart_command /nowhere/restart cannot be run: No such file or directory",
    ),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_restart_that_fails(program: Program, ollama: ScriptedOllama, kind: str) -> None:
    words, text = FAILING[kind]
    ollama.script(run=DIES)
    ended = run(program, ollama, "--wait-engine", "0.2", restart_command=words).must(5)
    assert last_line(ended).startswith("error: ")
    assert last_line(ended).endswith(text)


def test_a_restart_that_brings_nothing_back(
    program: Program, ollama: ScriptedOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the command has said something, hours pass from look to look."""
    wait = programs._wait

    def wait_for_hours(command: process.Service, log: Path, is_back: Callable[[], bool]) -> str:
        looks = itertools.count()
        hours = SimpleNamespace(
            sleep=time.sleep, monotonic=lambda: 3600.0 * next(looks) if "starting" in log.read_text("utf-8") else 0.0
        )
        monkeypatch.setattr(programs, "time", hours)
        return wait(command, log, is_back)

    monkeypatch.setattr(programs, "_wait", wait_for_hours)
    ollama.script(run=DIES)
    words = ["sh", "-c", "echo starting"]
    ended = run(program, ollama, "--wait-engine", "0.2", restart_command=words).must(5)
    assert "restart_command brought no server back in 120 s: starting" in last_line(ended)


@pytest.mark.parametrize("given", ["systemctl restart ollama", [], [["ollama", "serve"]]])
def test_a_restart_command_that_is_no_list_of_words(program: Program, ollama: ScriptedOllama, given: object) -> None:
    ended = run(program, ollama, restart_command=given).must(2)
    assert ended.stderr.count("\n") == 1
    assert "restart_command" in ended.stderr
    assert not (program.folder / "sweeps.db").exists()


# -- what a killed session left ----------------------------------------------------------------------------------------


def only_one(found: list[psutil.Process]) -> psutil.Process | None:
    return found[0] if len(found) == 1 else None


@pytest.mark.parametrize("server", ["host", "managed"])
@pytest.mark.parametrize("command", ["create", "run"])
def test_a_client_of_a_killed_session_is_ended_by_the_next(
    program: Program, ollama: ScriptedOllama, command: str, server: str
) -> None:
    hangs = {"create": [{}, {"hangs": True}, {}], "run": [{"hangs": True}, {}]}
    ollama.script(**{command: hangs[command]})
    keys = {"server": "managed"} if server == "managed" else {}
    started = program.start("run", grid(program, **keys), *ollama.options())
    until("it works", lambda: len(ollama.did(command)) == len(hangs[command]) - 1)
    started.kill(signal.SIGKILL)
    started.wait()
    left = until("only the client is left", lambda: only_one(marked(program.mark)))

    said = run(program, ollama, **keys).must()
    assert f"Ended a left-over ollama {command} (pid {left.pid}) of the previous session\n" in said.stdout + said.stderr
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
    assert history(program) == [("interrupted", "died"), ("ok", "")]
    check_nothing_left(program, ollama)


@pytest.mark.parametrize("is_restarted_by_the_sweep", [True, False])
def test_a_runner_whose_ollama_died_is_named_when_the_server_is_back(
    program: Program, ollama: ScriptedOllama, monkeypatch: pytest.MonkeyPatch, is_restarted_by_the_sweep: bool
) -> None:
    orphan = Orphan(4711, 2**30)
    monkeypatch.setattr(server, "orphans", lambda: (orphan,) if len(ollama.did("serve")) > 1 else ())
    ollama.script(run=DIES)
    keys = {"restart_command": ["sh", "-c", f"{ollama.binary} serve &"]} if is_restarted_by_the_sweep else {}
    someone = threading.Thread(target=ollama.serve_again)
    if not is_restarted_by_the_sweep:
        someone.start()
    ended = run(program, ollama, **keys).must()
    if someone.is_alive():
        someone.join()
    assert history(program) == [("error", "engine_died"), ("ok", "")]
    warning = "Warning: llama-server (pid 4711) has lost its Ollama and holds 1.0 GiB"
    assert (ended.stdout + ended.stderr).count(warning) == 1


def has_begun(pid: int, words: list[str]) -> bool:
    return psutil.Process(pid).cmdline() == words


def test_what_is_said_of_several_left_overs(tmp_path: Path) -> None:
    """The program with its first plain word, or the script of an interpreter; no paths, numbers or code."""
    script = tmp_path / "serve.py"
    script.write_text(HANGS, "utf-8")
    python = Path(sys.executable).name
    commands = {
        "sleep": ["sleep", "600"],
        "serve.py run": [sys.executable, str(script), "run", "--verbose"],
        f"{python} timeit": [sys.executable, "-m", "timeit", HANGS],
        python: [sys.executable, "-c", HANGS],
    }
    token = f"left-{os.getpid()}-{tmp_path.name}"
    with contextlib.ExitStack() as stack:
        named = []
        for name, words in commands.items():
            left = process.spawn_service(words, env=os.environ, log=tmp_path / "log", token=token)
            stack.callback(left.end)
            until(f"{name} has begun", functools.partial(has_begun, left.pid, words))
            named.append(f"{name} (pid {left.pid})")
        said = end_process(Leftover(1, "process", token, {}))
        assert said == f"Ended a left-over {', '.join(named)} of the previous session"
        assert end_process(Leftover(1, "process", token, {})) is None
