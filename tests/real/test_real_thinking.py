"""A model that thinks, on real Ollamas: a template of a few examples makes a small one think in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import MODEL, RealOllama, Servers
from sweep_runner import ONE_LOAD, Sweep

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.store.reader import Reader

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

THINKER = "thinker"
MODELFILE = f'''FROM {MODEL}
TEMPLATE """Question: What colour is the sky?
<think>
The sky is blue.
</think>
Blue

Question: What colour is grass?
<think>
Grass is green.
</think>
Green

{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}Question: {{{{ .Content }}}}
{{{{ else }}}}{{{{ if .Thinking }}}}<think>
{{{{ .Thinking }}}}
</think>
{{{{ end }}}}{{{{ .Content }}}}

{{{{ end }}}}{{{{ end }}}}<think>
{{{{ if not .Think }}}}</think>
{{{{ end }}}}"""
PARAMETER stop "Question:"
'''
QUESTION = {"id": "snow", "category": "colour", "prompt": "What colour is snow?", "reference": "White",
            "expect": {"facts": ["white"], "forbidden": ["snow"]}}  # fmt: skip

BASE: dict[str, Any] = {
    "task": "items", "num_ctx": [512], "num_batch": [64], "warmup": 0, "retries": 2, "interim": "off", **ONE_LOAD,
    "tasks": {"items": {"data": "colours.jsonl", "temperature": 0, "num_predict": 30}},
}  # fmt: skip


@pytest.fixture
def modelfile(tmp_path: Path) -> Path:
    path = tmp_path / "thinking"
    path.write_text(MODELFILE)
    return path


@pytest.fixture
def thinking(real_ollama: Servers, modelfile: Path, version: str) -> Iterator[RealOllama]:
    """A server with a model that thinks."""
    found = real_ollama(version)
    assert found.command("create", THINKER, "-f", str(modelfile)).returncode == 0
    yield found
    found.command("rm", THINKER)


def measured(server: RealOllama, sweep: Sweep, *words: str, **keys: Any) -> list[dict[str, Any]]:
    """The cells of a sweep of one question."""
    (sweep.folder / "colours.jsonl").write_text(json.dumps(QUESTION) + "\n")
    sweep("run", sweep.config(**{**BASE, **keys}), *server.sweep_options(), *words).must()
    return sweep.rows()


def kept(sweep: Sweep) -> list[AnswerRow]:
    with Reader.open(sweep.folder / "sweeps.db") as reader:
        return list(reader.answers(reader.sweeps()[0].sweep_id))


@pytest.mark.parametrize(("version", "engine"), [("0.34.0", "ollama"), ("0.34.0", "ollama_http"), ("0.33.0", "ollama")])
def test_what_a_model_thinks_is_kept_and_never_judged(engine: str, thinking: RealOllama, sweep: Sweep) -> None:
    """The thoughts name what the answer may not: judged with them, no answer would pass."""
    told, wild = measured(thinking, sweep, "--model", THINKER, "--engine", engine, think=[True, False])
    (thought, plain) = kept(sweep)
    assert (thought.answer.text.strip(), thought.answer.thoughts.strip()) == ("White", "Snow is white.")
    assert (told["status"], told["passed"], plain.answer.thoughts) == ("ok", 1, "")
    assert wild["status"] == "ok"
    if engine == "ollama_http":
        assert 4 < told["thinking_count"] < told["eval_count"]
        assert 0 < told["thinking_duration_s"] < told["latency_s"]
        assert wild["thinking_count"] is None
    else:
        assert thought.thinking_count is None


def test_only_thoughts_and_no_thoughts_at_all(real_ollama: Servers, sweep: Sweep, modelfile: Path) -> None:
    """The template that thinks is the sweep's own here; without it the model cannot think, and Ollama says so."""
    server = real_ollama("0.34.0")
    tasks = {"items": {"data": "colours.jsonl", "temperature": 0, "num_predict": 3}}
    words = ("--model", MODEL, "--think", "high")
    (cell,) = measured(server, sweep, *words, tasks=tasks, modelfile=str(modelfile))
    assert (cell["status"], cell["reason"], cell["attempts"]) == ("error", "only_thoughts", 1)
    assert kept(sweep)[0].answer.thoughts.startswith("Snow")
    sweep("run", sweep.config("plain", **BASE), *server.sweep_options(), *words).must()
    (_, refused) = sweep.rows(sql="select * from results order by sweep")
    assert (refused["status"], refused["reason"], refused["attempts"]) == ("error", "cannot_think", 1)
    said = server.command("run", MODEL, "--think=true", stdin="Hello").stderr
    assert f'Error: 400 Bad Request: "{MODEL}" does not support thinking' in said
