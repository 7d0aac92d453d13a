"""What the embedded engine asks of llama.cpp, and what it believes of the answers: its worker is a script."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blobs import SMALLEST_GGUF, install
from blobs import installed as installed  # a fixture
from llamacpp_cells import WAIT_S, make_cell
from llamacpp_cells import needs_xllamacpp as needs_xllamacpp  # a fixture

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.llamacpp import engine as engine_of_llamacpp
from ollama_sweep.engines.llamacpp.engine import Engine


@pytest.mark.parametrize(
    ("template", "think", "told"),
    [
        ("{{ enable_thinking }}", False, {"enable_thinking": False}),
        ("{{ enable_thinking }}", "low", {"enable_thinking": True}),
        ("{{ reasoning_effort }}", False, {}),
        ("{{ reasoning_effort }}", True, {"reasoning_effort": "medium"}),
        ("{{ reasoning_effort }}", "high", {"reasoning_effort": "high"}),
        ("<think>", True, {}),
        ("{{ messages }}", False, {}),
    ],
)
def test_a_chat_template_is_told_to_think_in_its_own_words(template: str, think: bool | str, told: object) -> None:
    assert engine_of_llamacpp._thinking(template, think, "m") == told


def test_a_chat_template_without_thoughts_cannot_think() -> None:
    with pytest.raises(CellFailed, match="m does not support thinking") as failure:
        engine_of_llamacpp._thinking("{{ messages }}", True, "m")
    assert failure.value.reason == "cannot_think"


# -- what is asked of llama.cpp: a worker that answers with the request --------------------------------------------

ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print("I model loaded", file=sys.stderr, flush=True)
    answer = {"text": line, "timings": {"prompt_n": 5, "cache_n": 0}, "ttft_s": 0.1, "duration_s": 0.2}
    print(json.dumps({"loaded": True} if "load" in request else answer), flush=True)
"""


HOSTILE = """
import json, sys
answers = json.loads({answers!r})
for line in sys.stdin:
    print("I model loaded", file=sys.stderr, flush=True)
    print('{{"loaded": true}}' if "load" in json.loads(line) else answers.pop(0), flush=True)
"""


@pytest.mark.parametrize(
    ("lines", "reason", "words"),
    [
        (["not JSON"], "protocol", "the engine's process answered nonsense: the answer is no JSON: not JSON"),
        (["[]"], "bad_value", "answer: [] instead of an object"),
        (["[" * 100_000], "protocol", "is no JSON"),
        (['{"text": 5, "timings": {}}'], "bad_value", "text: 5 instead of a text"),
        (['{"text": "x", "timings": [1]}'], "bad_value", "timings: [1] instead of an object"),
        (['{"text": "x", "timings": {"prompt_ms": NaN}}'], "bad_value", "prompt_ms: NaN"),
        (['{"text": "x", "timings": {"prompt_n": -1}}'], "bad_value", "prompt_n: -1"),
        (['{"text": "x", "timings": {"predicted_n": %s}}' % ("9" * 5000)], "bad_value", "predicted_n: 9999"),
        (['{"text": "x", "duration_s": "7"}'], "bad_value", 'duration_s: "7"'),
        (['{"error": "half \\ud83d"}'], "unknown", "half \ufffd"),
        (['{"error": [7]}'], "unknown", "[7]"),
    ],
)
def test_what_a_child_says_and_cannot_be_is_its_cells(
    tmp_path: Path, installed: Path, lines: list[str], reason: str, words: str
) -> None:
    good = '{"text": "\\ud83d\\ude00", "timings": {"prompt_n": 5, "prompt_ms": 0}, "ttft_s": 0.1, "duration_s": 0.2}'
    (tmp_path / "hostile.py").write_text(HOSTILE.format(answers=json.dumps([*lines, good])))
    install(installed, "registry.ollama.ai/library/smol/latest", {"model": gguf_with_chat()})
    engine = Engine(EngineSettings(extra={"worker_prefix": f"{sys.executable} {tmp_path / 'hostile.py'}"}))
    cell = make_cell("smol", 512, 64)
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        engine.generate(cell, "Hello", WAIT_S)
    assert caught.value.reason == reason
    assert words in caught.value.error
    assert len(caught.value.error) < 600
    (tmp_path / "hostile.py").write_text(HOSTILE.format(answers=json.dumps([good])))
    engine.release(failed=True)
    engine.prepare(cell)
    found = engine.generate(cell, "Hello", WAIT_S)
    assert (found.text, found.prompt_eval_count, found.prompt_eval_duration_s) == ("\U0001f600", 5, None)
    engine.close()


@pytest.fixture
def echo(tmp_path: Path, installed: Path) -> Callable[..., tuple[dict[str, Any], list[str]]]:
    """The request for a cell of an installed model with these layers, and what the person was told."""
    (tmp_path / "echo.py").write_text(ECHO)

    def ask(
        template: str, layers: Mapping[str, bytes], system: str = "", **options: Scalar
    ) -> tuple[dict[str, Any], list[str]]:
        install(installed, "registry.ollama.ai/library/smol/latest", {"model": gguf_with_chat(), **layers})
        said: list[str] = []
        extra = {"worker_prefix": f"{sys.executable} {tmp_path / 'echo.py'}"}
        engine = Engine(EngineSettings(template=template, say=said.append, extra=extra))
        cell = replace(make_cell("smol", 512, 64, **options), system=system)
        engine.prepare(cell)
        requests = [json.loads(engine.generate(cell, "Hello", WAIT_S).text)["generate"] for _ in range(2)]
        engine.close()
        assert requests[0] == requests[1]
        return requests[0], said

    return ask


def gguf_with_chat() -> bytes:
    key, template = b"tokenizer.chat_template", b"{{ messages }}"
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(template)) + template
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry


Echo = Callable[..., tuple[dict[str, Any], list[str]]]


@pytest.mark.usefixtures("needs_xllamacpp")
def test_a_prompt_stands_in_the_models_own_chat_template(echo: Echo) -> None:
    request, said = echo("", {})
    assert request["messages"] == [{"role": "user", "content": "Hello"}]
    assert (request["n_predict"], request["temperature"], request["top_p"]) == (2, 0.8, 0.9)
    assert said == []


@pytest.mark.usefixtures("needs_xllamacpp")
def test_options_of_the_cell_before_the_modelfile_before_the_model(echo: Echo) -> None:
    parameters = ("top_k 7", "seed 5", "stop a", "stop b")
    template = "FROM x\nSYSTEM Be brief.\nMESSAGE user Hi\n" + "".join(f"PARAMETER {line}\n" for line in parameters)
    params = b'{"top_k": 1, "min_p": 0.5, "stop": ["c"]}'
    request, _ = echo(template, {"system": b"Be long.", "params": params}, seed=9)
    assert (request["top_k"], request["min_p"], request["seed"], request["stop"]) == (7, 0.5, 9, ["a", "b"])
    assert [message["content"] for message in request["messages"]] == ["Be brief.", "Hi", "Hello"]


@pytest.mark.usefixtures("needs_xllamacpp")
def test_a_system_prompt_of_the_cell_counts_before_all_others(echo: Echo) -> None:
    request, _ = echo("FROM x\nSYSTEM Be brief.\n", {"system": b"Be long."}, system="Be kind.")
    assert [message["content"] for message in request["messages"]] == ["Be kind.", "Hello"]
    request, _ = echo("FROM x\nTEMPLATE {{ .Prompt }}\n", {}, system="Be kind.")
    assert request["prompt"] == "Be kind.\n\nHello"


@pytest.mark.usefixtures("needs_xllamacpp")
def test_a_template_that_is_the_prompt_alone(echo: Echo) -> None:
    request, said = echo("FROM x\nTEMPLATE {{ .Prompt }}\nSYSTEM Be brief.\n", {})
    assert request["prompt"] == "Hello"
    assert said == []


@pytest.mark.usefixtures("needs_xllamacpp")
def test_a_go_template_cannot_be_used_and_that_is_said_once(echo: Echo) -> None:
    request, said = echo("", {"template": b"<s>{{ .System }}{{ .Prompt }}"})
    assert request["messages"] == [{"role": "user", "content": "Hello"}]
    assert len(said) == 1
    assert "cannot use the TEMPLATE of smol" in said[0]


@pytest.mark.parametrize("server", [("num_parallel", 2), ("kv_cache_type", "q3_0")])
def test_a_server_setting_that_a_load_cannot_have(installed: Path, server: tuple[str, Scalar]) -> None:
    install(installed, "registry.ollama.ai/library/smol/latest", {"model": SMALLEST_GGUF})
    cell = Cell((), "smol", (("num_batch", 64), ("num_ctx", 512), ("num_predict", 2)), server=(server,))
    with pytest.raises(CellFailed) as caught:
        Engine(EngineSettings()).prepare(cell)
    assert (caught.value.status, caught.value.reason) == (Status.ERROR, "config")
