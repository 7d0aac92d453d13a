"""A scripted `lms` and the server behind it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from book import Book
from openai_server import (
    Scripted,
    chunk,
    end,
    scripted_server,
    stream,
    usage,
)

from ollama_sweep.engines.base import EngineSettings

SMALL = {
    "type": "llm", "modelKey": "smollm2-135m-instruct", "path": "unsloth/SmolLM2-135M-Instruct-GGUF/smol-Q4_1.gguf",
    "sizeBytes": 98_000_000, "paramsString": "135M", "architecture": "llama", "maxContextLength": 8192,
    "quantization": {"name": "Q4_1", "bits": 4},
}  # fmt: skip
DOWNLOAD = "bartowski/QwQ-32B-Preview-GGUF/QwQ-32B-Preview-Q4_K_M.gguf"
LMS = '''#!{python} -SI
"""A scripted `lms`: its state is a JSON file, every call is a line of a journal."""
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(__file__).parent
state = json.loads((folder / "state.json").read_text())
words = sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(" ".join(words) + "\\n")

def save():
    (folder / "state.json").write_text(json.dumps(state))

def fail(text):
    print("\\x1b[31mError:\\x1b[0m " + text, file=sys.stderr)
    sys.exit(1)

def wait_until(is_so):
    for _ in range(1500):
        if is_so():
            return
        time.sleep(0.02)

def listens():
    import socket
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", state["port"])) == 0

def is_up():
    import urllib.request
    try:
        return urllib.request.urlopen("http://127.0.0.1:%d/health" % state["port"], timeout=5)
    except OSError:
        return False

def real_server(*more):
    """The real llama-server behind the API, where the state names one."""
    if state.get("pid"):
        os.kill(state.pop("pid"), signal.SIGKILL)
        wait_until(lambda: not listens())
    if not state.get("binary") or not state["running"]:
        return
    import subprocess
    argv = [state["binary"], "-m", state["gguf"], "--host", "127.0.0.1", "--port", str(state["port"]), "-t", "1",
            "-np", "1", *more]
    log = (folder / "server.log").open("ab")
    state["pid"] = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True).pid
    save()
    wait_until(is_up)

failing = state["fails"].get(" ".join(words[:2])) or state["fails"].get(words[0])
if failing == "hang":
    (folder / "hangs").touch()
    time.sleep(600)
elif failing:
    fail(failing)
if words[:2] == ["daemon", "status"]:
    if state["daemon"] is None:
        fail("unknown command daemon")
    print(json.dumps({{"status": "running" if state["daemon"] else "not-running"}}))
    sys.exit()
if words[:2] == ["daemon", "down"]:
    state["daemon"] = False
    state["loaded"] = []
elif state["daemon"] is False:
    state["daemon"] = True
if words[0] == "version":
    print("\\x1b[38m   __   __  ___\\x1b[0m\\nlms - LM Studio CLI - v0.0.47\\nGitHub: https://github.com/lmstudio-ai/lms")
elif words[:2] == ["server", "status"]:
    print(json.dumps({{"running": state["running"], "port": state["port"]}}))
elif words[:2] == ["server", "start"]:
    state["running"] = True
    if not state.get("binary"):
        state["port"] = int(words[words.index("--port") + 1])
    real_server()
elif words[:2] == ["server", "stop"]:
    state["running"] = False
    real_server()
elif words[0] == "ls":
    print(json.dumps(state["models"]))
elif words[0] == "ps":
    print(json.dumps(state["loaded"]))
elif words[0] == "get":
    state["models"].append(state["hub"])
elif words[0] == "load":
    found = [model for model in state["models"] if words[1] in (model["modelKey"], model["path"])]
    if not found:
        fail("Model not found")
    options = dict(zip(words[2::1], words[3::1]))
    length = int(options.get("--context-length", 4096))
    entry = {{**(state.get("instead") or found[0]), "identifier": options["--identifier"],
             "contextLength": min(length, found[0]["maxContextLength"]), "status": "idle"}}
    state["loaded"].append(entry)
    real_server("-c", str(length), "--alias", entry["identifier"])
elif words[0] == "unload":
    state["loaded"] = [entry for entry in state["loaded"] if entry["identifier"] != words[1]]
save()
'''


@dataclass
class Studio:
    """The scripted `lms` of a test."""

    folder: Path

    def put(self, **state: Any) -> None:
        """Change its state."""
        self.file.write_text(json.dumps({**self.state, **state}), "utf-8")

    @property
    def file(self) -> Path:
        return self.folder / "state.json"

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text("utf-8"))
        return found

    def calls(self) -> list[str]:
        """Every call so far."""
        journal = self.folder / "calls"
        return journal.read_text("utf-8").splitlines() if journal.exists() else []

    def changing(self) -> list[str]:
        """The calls that change something."""
        looking = ("daemon status", "server status", "version", "ls", "ps")
        return [call for call in self.calls() if not call.startswith(looking)]


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as made:
        made.chat(stream(chunk("Hello"), end(), usage(12, 1)))
        yield made


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "lms"
    program.write_text(LMS.format(python=sys.executable), "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    made = Studio(folder)
    made.file.write_text(
        json.dumps({"daemon": True, "running": False, "port": 0, "models": [SMALL], "loaded": [], "fails": {}}), "utf-8"
    )
    yield made
    if pid := made.state.get("pid"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def settings(server: Scripted, book: Book, said: list[str]) -> EngineSettings:
    return EngineSettings(host=server.host, ledger=book, say=said.append)
