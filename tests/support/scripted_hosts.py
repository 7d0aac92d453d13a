"""Scripted Ollama servers by name, as the hosts of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import free_port
from scripted_ollama import MODEL, ScriptedOllama
from sweeping import PROMPT_TOKENS, Program

DONE = {
    "done": True, "prompt_eval_count": PROMPT_TOKENS, "prompt_eval_cached_count": 0, "prompt_eval_duration": 10_000_000,
    "eval_count": 2, "eval_duration": 5_000_000, "total_duration": 20_000_000,
}  # fmt: skip
ANSWER = json.dumps({"response": "yes", "done": False}) + "\n" + json.dumps(DONE) + "\n"
GOOD: dict[str, Any] = {"raw": {"/api/generate": ANSWER}}


class Hosts:
    """Scripted servers by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.servers: dict[str, ScriptedOllama] = {}

    def add(self, name: str, **script: Any) -> None:
        server = ScriptedOllama(self._folder / f"server-{name}", free_port())
        raw = {**GOOD["raw"], **script.pop("raw", {})}
        server.script(raw=raw, **script)
        server.serve()
        self.servers[name] = server

    def config(self, program: Program, *more: dict[str, str], **keys: Any) -> Path:
        """A sweep over all of them."""
        hosts = [{"name": name, "host": server.host} for name, server in self.servers.items()]
        return program.grid(engine="ollama_http", model=MODEL, hosts=[*hosts, *more], interim="off", **keys)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    for server in made.servers.values():
        server.kill()


def measured(program: Program, cells: int = 4) -> None:
    assert [row["status"] for row in program.rows()] == ["ok"] * cells
    assert program.rows(sql="select count(*) as n from attempts where status <> 'ok'") == [{"n": 0}]
