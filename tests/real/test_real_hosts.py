"""`hosts check` of a real server: its version, its model's digest, its clock, and the disk of this computer."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import re

import pytest
from ollama_fixture import MODEL, RealOllama
from sweeping import Program, program

pytestmark = pytest.mark.real


def test_a_real_server_is_told_in_a_line(server: RealOllama, program: Program) -> None:
    digest = server.installed()[f"{MODEL}:latest"][:12]
    before = server.ps()
    ended = program("hosts", "check", server.host, "--model", MODEL).must()
    facts = rf"Ollama {re.escape(server.version)}, {MODEL} \({digest}\), clock as here, [\d.]+ .?i?B free"
    assert re.match(rf"(?:ok|warning) +{server.host} {facts}", ended.stdout), ended.stdout
    assert {entry["name"] for entry in server.ps()} <= {entry["name"] for entry in before}, "nothing is loaded for it"


def test_a_model_that_is_not_there_is_named(server: RealOllama, program: Program) -> None:
    ended = program("hosts", "check", server.host, "--model", "smoll").must(5)
    assert "smoll is not installed there. Did you mean smol? Run there: ollama pull smoll" in ended.stdout
