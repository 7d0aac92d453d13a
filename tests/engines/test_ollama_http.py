"""The engine `ollama_http`: what it asks for, what it makes of broken answers, and the same numbers as `ollama`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import MODEL, RealOllama, free_port

from ollama_sweep import engines
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineUnavailable
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.ollama_http import Engine

TIMEOUT_S = 120.0
LONG_AGO_S = 0.2
PROMPT = "Name the three largest rivers of the world and the seas that they flow into. " * 3
DONE = {
    "done": True,
    "prompt_eval_count": 12,
    "prompt_eval_cached_count": 2,
    "prompt_eval_duration": 500_000_000,
    "eval_count": 3,
    "eval_duration": 20_000_000,
    "context": [1, 2, 3],
}


def lines(*objects: object) -> bytes:
    return b"".join(json.dumps(thing, ensure_ascii=False).encode() + b"\n" for thing in objects)


def piece(text: str) -> dict[str, Any]:
    return {"response": text, "done": False}


# -- a scripted server -------------------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """Answers as an Ollama with one model `m`; `generate` and `embed` are the bodies that come next."""

    host: str = ""
    status: int = 200
    body: bytes = lines(piece("Hello"), piece(" world"), DONE)
    hangs_after: bool = False
    capabilities: list[str] = field(default_factory=lambda: ["completion"])
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    def of(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.asked if asked == path]


def handler_of(script: Scripted) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            return None

        def do_GET(self) -> None:
            models = [{"name": "m:latest", "model": "m:latest", "digest": "ab", "size": 1}]
            known = {"/api/version": {"version": "0.34.0"}, "/api/tags": {"models": models}, "/api/ps": {"models": []}}
            self.whole(200, json.dumps(known[self.path]).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            script.asked.append((self.path, body))
            if self.path == "/api/show":
                self.whole(
                    200, json.dumps({"capabilities": script.capabilities, "details": {}, "model_info": {}}).encode()
                )
            elif "prompt" not in body and "input" not in body:
                self.whole(200, lines({"done": True, "done_reason": "load"}))
            elif script.hangs_after:
                self.piecewise()
            else:
                self.whole(script.status, script.body)

        def whole(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def piecewise(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(script.body):x}\r\n".encode() + script.body + b"\r\n")
            self.wfile.flush()
            script.let_go.wait()
            self.close_connection = True

    return Handler


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    script = Scripted()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(script)) as listening:
        script.host = f"http://127.0.0.1:{listening.server_address[1]}"
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield script
        script.let_go.set()
        listening.shutdown()


@pytest.fixture
def make(scripted: Scripted) -> Iterator[Callable[..., Engine]]:
    with contextlib.ExitStack() as stack:

        def make(template: str = "", **settings: Any) -> Engine:
            given = EngineSettings(host=scripted.host, ollama="/bin/true", template=template, **settings)
            return stack.enter_context(closing(Engine(given)))

        yield make


Make = Callable[..., Engine]


def cell(model: str = "m", system: str = "", **options: Scalar) -> Cell:
    given: dict[str, Scalar] = {"num_ctx": 512, "num_batch": 64, "num_predict": 4, **options}
    return Cell((), model, tuple(sorted(given.items())), system=system)


def ask(engine: Engine, asked: Cell, timeout_s: float = TIMEOUT_S) -> Generation:
    engine.prepare(asked)
    return engine.generate(asked, "Hello?", timeout_s)


def test_an_answer_in_pieces(make: Make, scripted: Scripted) -> None:
    scripted.body = lines(piece("one\u0085\u2028"), piece("\x1e\n"), piece(""), piece("two"), DONE)
    found = ask(make(), cell())
    assert found.text == "one\u0085\u2028\x1e\ntwo"
    assert found.chunk_count == 3
    assert (found.prompt_eval_count, found.cached_count, found.prompt_eval_duration_s) == (12, 2, 0.5)
    assert (found.eval_count, found.eval_duration_s) == (3, 0.02)
    assert 0 < (found.ttft_s or 0) <= found.client_duration_s
    assert json.loads(found.raw)["response"] == found.text
    assert "context" not in found.raw


def test_what_goes_with_a_request(make: Make, scripted: Scripted) -> None:
    scripted.capabilities = ["completion", "thinking"]
    template = (
        "FROM x\nSYSTEM Be kind.\nTEMPLATE {{ .Prompt }}!\nPARAMETER num_ctx 9\nPARAMETER top_k 7\nPARAMETER stop a\n"
        "PARAMETER stop b\nPARAMETER use_mmap false\nLICENSE MIT\n"
    )
    engine = make(template)
    ask(engine, cell(temperature=0.5))
    load, request = scripted.of("/api/generate")
    for body in (load, request):
        assert body["options"] == {
            "num_ctx": 512, "num_batch": 64, "num_predict": 4, "temperature": 0.5,
            "top_k": 7, "stop": ["a", "b"], "use_mmap": False,
        }  # fmt: skip
        assert (body["system"], body["template"], body["think"]) == ("Be kind.", "{{ .Prompt }}!", False)
        assert body["model"] == "m"
    assert (request["prompt"], request["stream"]) == ("Hello?", True)
    ask(engine, cell(system="Be brief.", stop="end"))
    last = scripted.of("/api/generate")[-1]
    assert (last["system"], last["options"]["stop"]) == ("Be brief.", ["end"])


def test_thoughts_are_kept_apart_and_counted(make: Make, scripted: Scripted) -> None:
    """The pieces are one token each, as many as the server counts."""
    scripted.capabilities = ["completion", "thinking"]
    thoughts = [{"thinking": text, "response": "", "done": False} for text in ("Maybe", " the answer", ": A?", " No.")]
    scripted.body = lines(*thoughts, piece("Paris"), piece("."), {**DONE, "eval_count": 7})
    found = ask(make(), cell(think="high"))
    assert (found.text, found.thoughts) == ("Paris.", "Maybe the answer: A? No.")
    assert (found.thinking_count, found.chunk_count) == (4, 6)
    assert 0 < (found.thinking_duration_s or 0) <= found.client_duration_s
    assert (json.loads(found.raw)["thinking"], json.loads(found.raw)["response"]) == (found.thoughts, found.text)
    last = scripted.of("/api/generate")[-1]
    assert last["think"] == "high"
    assert "think" not in last["options"]


def test_what_is_left_to_the_engine_is_not_sent(make: Make, scripted: Scripted) -> None:
    ask(make("FROM x\nPARAMETER num_ctx 9\n"), cell(num_ctx=0, num_batch=0))
    assert [body["options"] for body in scripted.of("/api/generate")] == [{"num_predict": 4}] * 2
    assert "system" not in scripted.of("/api/generate")[-1]


@pytest.mark.parametrize("command", ["MESSAGE user Hi", "ADAPTER ./a.gguf", "RENDERER x", "PARSER x"])
def test_a_template_that_no_request_can_carry(
    make: Make, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"modelfile:2: {command.split()[0]} cannot go with a request") as caught:
        make(f"FROM x\n{command}\n")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is needed"


BROKEN: dict[str, tuple[int, bytes, Status, str, str]] = {
    "html": (200, b"<html>Sign in</html>", Status.PARSE_ERROR, "protocol", "<html>Sign in</html>"),
    "401": (401, b'{"error": "unauthorized"}', Status.ERROR, "unknown", "unauthorized"),
    "429": (429, b"slow down", Status.ERROR, "unknown", "HTTP 429: slow down"),
    "a list": (200, b"[]", Status.PARSE_ERROR, "protocol", "is no JSON"),
    "half": (200, lines(piece("Hel")), Status.ERROR, "engine_died", "broke off after 1 pieces"),
    "half a line": (200, b'{"respon', Status.PARSE_ERROR, "protocol", "is no JSON"),
    "nothing": (200, b"", Status.ERROR, "no_statistics", "nothing was answered"),
    "no counts": (200, lines(piece("x"), {"done": True}), Status.ERROR, "no_statistics", "no statistics"),
    "oom": (500, b'{"error": "cudaMalloc failed: out of memory"}', Status.OOM, "cuda_oom", "cudaMalloc"),
    "late": (
        200,
        lines(piece("x"), {"error": "an error was encountered while running the model: unexpected EOF"}),
        Status.CRASHED,
        "runner_died",
        "unexpected EOF",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_answer_is_the_cells_failure(make: Make, scripted: Scripted, kind: str) -> None:
    scripted.status, scripted.body, status, reason, text = BROKEN[kind]
    engine = make()
    with pytest.raises(CellFailed) as caught:
        ask(engine, cell())
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert text in caught.value.error
    scripted.status, scripted.body = 200, lines(piece("Hello"), DONE)
    assert ask(engine, cell()).text == "Hello"


@pytest.mark.parametrize("body", [b"", lines(piece("Hel")), b'{"respo'])
def test_an_answer_that_does_not_end_is_a_timeout(make: Make, scripted: Scripted, body: bytes) -> None:
    """Before the first piece, between two pieces, in the middle of one."""
    scripted.body, scripted.hangs_after = body or b" ", True
    with pytest.raises(CellFailed) as caught:
        ask(make(), cell(), LONG_AGO_S)
    assert (caught.value.status, caught.value.reason) == (Status.TIMEOUT, "run")
    assert "0.2 s" in caught.value.error


def test_a_connection_that_breaks_is_the_cells_failure(make: Make, scripted: Scripted) -> None:
    scripted.body, scripted.hangs_after = lines(piece("Hel")), True
    scripted.let_go.set()
    with pytest.raises(CellFailed) as caught:
        ask(make(), cell())
    assert (caught.value.status, caught.value.reason) == (Status.ERROR, "engine_died")


def test_a_server_that_is_away_is_not_the_cells_failure() -> None:
    settings = EngineSettings(host=f"http://127.0.0.1:{free_port()}", ollama="/bin/true")
    with closing(Engine(settings)) as engine, pytest.raises(EngineUnavailable, match="Start it with: ollama serve"):
        engine.prepare(cell())


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, {"embeddings": [[0.1, 0.2]]}, "protocol"),
        (200, {"embeddings": [[0.1], []]}, "protocol"),
        (200, {}, "protocol"),
        (200, {"embeddings": [[0.1], ["x"]]}, "bad_value"),
        (200, {"embeddings": [[0.1], [float("nan")]]}, "bad_value"),
        (200, {"embeddings": [[0.1], [True]]}, "bad_value"),
        (200, {"embeddings": [[0.1], [0.1, 0.2]]}, "bad_value"),
        (200, {"embeddings": [[0.1], {"a": 1}]}, "bad_value"),
        (200, {"embeddings": 7}, "bad_value"),
        (200, {"embeddings": [[0.1], [0.2]], "prompt_eval_count": -1}, "bad_value"),
        (501, {"error": "This server does not support embeddings. Start it with `--embeddings`"}, "cannot_embed"),
        (400, {"error": "the input length exceeds the context length"}, "does_not_fit"),
    ],
)
def test_vectors_that_do_not_come(make: Make, scripted: Scripted, status: int, body: object, reason: str) -> None:
    engine = make()
    engine.prepare(cell())
    scripted.status, scripted.body = status, lines(body)
    with pytest.raises(CellFailed) as caught:
        engine.embed(cell(), ["one", "two"], 16, TIMEOUT_S)
    assert caught.value.reason == reason


def test_a_persons_model_is_unloaded_and_never_removed(make: Make, scripted: Scripted) -> None:
    engine = make()
    assert engine.clear(Leftover(1, "loaded_model", "m", {})) is None
    assert engine.clear(Leftover(2, "scratch_model", "m", {})) is None
    assert {"model": "m", "keep_alive": 0} in scripted.of("/api/generate")
    assert not scripted.of("/api/delete")


# -- the real thing ----------------------------------------------------------------------------------------------------


def settings_for(server: RealOllama, template: str = "") -> EngineSettings:
    return EngineSettings(host=f"http://{server.host}", ollama=str(server.binary), template=template)


def starts(server: RealOllama) -> int:
    return server.log_text().count('msg="starting llama-server"')


@pytest.mark.real
def test_the_same_cell_by_command_line_and_by_request(server: RealOllama) -> None:
    """Tokens agree to the last one; with temperature 0 the texts do, too; neither loads what the other has loaded."""
    template = "FROM x\nSYSTEM Be kind.\nPARAMETER top_k 5\n"
    asked = replace(cell(MODEL, num_predict=8, num_thread=1, temperature=0.0, seed=1), system="Answer in one word.")
    found, counted = [], []
    for name in ("ollama", "ollama_http"):
        with closing(engines.load(name, settings_for(server, template))) as engine:
            counted.append(engine.count_tokens(MODEL, PROMPT, system=asked.system))
            engine.prepare(asked)
            found.append(engine.generate(asked, PROMPT, TIMEOUT_S))
    assert counted[0] == counted[1] == found[0].prompt_eval_count == found[1].prompt_eval_count
    assert found[0].text == found[1].text
    assert found[0].eval_count == found[1].eval_count


@pytest.mark.real
def test_nothing_is_made_on_the_server(server: RealOllama) -> None:
    before, loads = server.installed(), starts(server)
    with closing(Engine(settings_for(server))) as engine:
        for system in ("", "Be brief."):
            asked = replace(cell(MODEL, num_thread=1), system=system)
            engine.prepare(asked)
            assert engine.generate(asked, PROMPT, TIMEOUT_S, fresh=False).eval_count
            assert server.installed() == before
        assert starts(server) == loads + 1, "two system prompts, one load"
        assert [entry["name"] for entry in server.ps()] == [f"{MODEL}:latest"]
    assert server.ps() == []
    assert server.installed() == before


@pytest.mark.real
def test_a_template_of_the_request_takes_the_place_of_the_models_own(server: RealOllama) -> None:
    asked = cell(MODEL, num_thread=1)
    with closing(Engine(settings_for(server, "FROM x\nTEMPLATE {{ .Prompt }}\n"))) as engine:
        engine.prepare(asked)
        bare = engine.generate(asked, PROMPT, TIMEOUT_S).prompt_eval_count
        assert engine.count_tokens(MODEL, PROMPT) == bare
    with closing(Engine(settings_for(server))) as engine:
        assert (engine.count_tokens(MODEL, PROMPT) or 0) > (bare or 0)


@pytest.mark.real
def test_a_gguf_file_is_imported_and_removed_again(server: RealOllama, small_model: Path) -> None:
    before, asked = server.installed(), cell(str(small_model), num_thread=1)
    with closing(Engine(settings_for(server))) as engine:
        engine.prepare(asked)
        assert set(server.installed()) - set(before)
        assert engine.generate(asked, PROMPT, TIMEOUT_S).eval_count
    assert server.installed() == before
    assert server.ps() == []


@pytest.mark.real
def test_a_cell_that_timed_out_does_not_spoil_the_next(server: RealOllama) -> None:
    """The runner stands still meanwhile, so that no machine is too quick for the time limit."""
    asked = cell(MODEL, num_ctx=4096, num_batch=512, num_thread=1, num_predict=200, temperature=0.0)
    with closing(Engine(settings_for(server))) as engine:
        engine.prepare(asked)
        runner = server.only_runner()
        os.kill(runner, signal.SIGSTOP)
        with pytest.raises(CellFailed) as caught:
            engine.generate(asked, PROMPT, LONG_AGO_S)
        with contextlib.suppress(ProcessLookupError):  # the server may have ended it by itself
            os.kill(runner, signal.SIGCONT)
        assert (caught.value.status, caught.value.reason) == (Status.TIMEOUT, "run")
        engine.release(failed=True)
        assert server.ps() == []
        short = cell(MODEL, num_thread=1)
        engine.prepare(short)
        assert engine.generate(short, PROMPT, TIMEOUT_S).cached_count in (0, None)
