"""Servers for the engines that speak the OpenAI API: one that answers as a test says, and a real llama-server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import END_S, START_S, free_port, script_output, until

JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html"
PAGE = "<!DOCTYPE html><html><head><title>Welcome to nginx</title></head><body>hello</body></html>"


@dataclass(frozen=True)
class Reply:
    """One answer. `cut` breaks the connection off after the body; `wait` is waited for before it ends."""

    body: str = ""
    status: int = 200
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    wait: threading.Event | None = None


def said(value: object, status: int = 200, **headers: str) -> Reply:
    """A JSON answer; `Retry_After="0"` is a header."""
    return Reply(json.dumps(value), status, headers={name.replace("_", "-"): text for name, text in headers.items()})


def refused(status: int, message: str, **headers: str) -> Reply:
    """An error as the API words it."""
    return said({"error": {"message": message, "type": "error", "code": status}}, status, **headers)


def chunk(text: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a streamed answer."""
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def end(reason: object = "stop") -> dict[str, Any]:
    """The event that ends the text."""
    return chunk(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """The event with the counts."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return chunk(choices=[], usage={**counts, **more.pop("usage", {})}, **more)


def stream(*events: object, done: bool = True, **reply: Any) -> Reply:
    """A streamed answer of these events; a text is sent as it is."""
    texts = [event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n" for event in events]
    return Reply("".join(texts) + ("data: [DONE]\n\n" if done else ""), kind=EVENTS, **reply)


MODELS = said({"object": "list", "data": [{"id": "small-model", "object": "model", "created": 7, "owned_by": "me"}]})


class Scripted:
    """A server on loopback. `replies` are given in turn for each path, the last one again and again."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {"/v1/models": [MODELS]}
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.released = threading.Event()
        self.clock_off_s = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self, None)

            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"]))
                outer.answer(self, json.loads(text))

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string((timestamp or time.time()) + outer.clock_off_s)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return None

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                return None

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.port = int(self._server.server_address[1])
        self.host = f"127.0.0.1:{self.port}"

    def chat(self, *replies: Reply) -> None:
        """What is answered to chats."""
        self.replies["/v1/chat/completions"] = list(replies)

    def bodies(self, path: str) -> list[Any]:
        """What was sent to a path."""
        return [body for asked, _, body in self.asked if asked == path]

    def answer(self, handler: BaseHTTPRequestHandler, body: object) -> None:
        self.asked.append((handler.path, {name.lower(): text for name, text in handler.headers.items()}, body))
        replies = self.replies.get(handler.path, [refused(404, "no such address")])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        with contextlib.suppress(OSError):
            self._send(handler, reply)

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        handler.send_response(reply.status)
        handler.send_header("Content-Type", reply.kind)
        for name, text in reply.headers.items():
            handler.send_header(name, text)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        data = reply.body.encode()
        if data:
            handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            handler.wfile.flush()
        if reply.wait is not None:
            self._drip(handler, reply.wait)
        if reply.cut:
            handler.close_connection = True
            handler.connection.shutdown(2)
            return
        handler.wfile.write(b"0\r\n\r\n")

    def _drip(self, handler: BaseHTTPRequestHandler, wait: threading.Event) -> None:
        """A comment now and then, as servers send it to keep a connection open."""
        while not wait.wait(0.02) and not self.released.is_set():
            handler.wfile.write(b"3\r\n:\n\n\r\n")
            handler.wfile.flush()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(END_S)


@contextlib.contextmanager
def scripted_server() -> Iterator[Scripted]:
    """A scripted server for the time of a test."""
    server = Scripted()
    try:
        yield server
    finally:
        server.close()


def llama_server_binary() -> Path:
    """The llama-server of the private Ollama build; skips where there is none."""
    return script_output("get_ollama", "0.34.0").parent.parent / "lib" / "ollama" / "llama-server"


@contextlib.contextmanager
def llama_server(gguf: Path, log: Path, *words: str, port: int | None = None) -> Iterator[str]:
    """A real llama-server with one model; its HOST:PORT."""
    host = f"127.0.0.1:{port or free_port()}"
    argv = [str(llama_server_binary()), "-m", str(gguf), "--host", "127.0.0.1", "--port", host.rpartition(":")[2]]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("LLAMA_ARG_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, "--threads", "1", "--parallel", "1", *words],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        until(f"llama-server answers at {host}", lambda: _is_up(host, process, log), START_S)
        yield host
    finally:
        process.kill()
        process.wait(END_S)


def _is_up(host: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"llama-server ended:\n{log.read_text('utf-8', 'replace')[-2000:]}")
    try:
        with urllib.request.urlopen(f"http://{host}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
