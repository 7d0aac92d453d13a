"""A small program that plays `ollama` as a script says, for what no real one does on demand: server and command line.

`ollama serve` answers a few requests, `ollama create` and `ollama run` ask it. All three read the script anew each
time and write what they did into a journal, so a test may change the one and read the other while they work.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from http.server import BaseHTTPRequestHandler

TEMPLATE_TOKENS = 3
READ_S, WROTE_S = 0.03, 0.01
FOR_EVER = 1_000_000
MODEL = "m"
UNREACHABLE = "Error: could not connect to ollama server, run 'ollama serve' to start it"

_LAUNCHER = """#!{python}
import sys
from collections import Counter
from pathlib import Path
sys.path.insert(0, {tests!r})
from scripted_ollama import play
sys.exit(play(Path(__file__).resolve().parent, sys.argv[1:]))
"""

Script = dict[str, Any]


# -- the test's side ---------------------------------------------------------------------------------------------------


class ScriptedOllama:
    """`binary` is the program and `host` where its server answers, with one model `m` installed."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.host = f"127.0.0.1:{port}"
        self.binary = folder / "ollama"
        python = Path(sys.executable).resolve()  # the one of the virtual environment takes longer to begin
        self.binary.write_text(_LAUNCHER.format(python=python, tests=str(Path(__file__).parent)), "utf-8")
        self.binary.chmod(0o755)
        self.script()
        _write(folder / "models.json", {f"{MODEL}:latest": 0})
        self._server: subprocess.Popen[bytes] | None = None

    def script(self, **script: Any) -> None:
        """What happens from now on.

        `version`, `capabilities`; `keeps`: so many questions for what is loaded are answered with a model that was
        unloaded; `stops`: the server stands still as it loads. `create`, `run` and `serve` are lists of steps, taken in
        turn; the last one stays. A step may have `says` (on stderr, in place of what it would say), `prints` (on
        stdout, the answer), `exit`, `hangs`, `makes` (a model, although it failed), `without` (labels of statistics),
        `dies` (the server, in the middle of it). `raw` are answers by their path, sent as they are, of a list one after
        the other; those of /api/generate are for requests that are streamed.
        """
        _write(self.folder / "script.json", script)

    def serve(self) -> None:
        """Start the server; it answers when this returns."""
        import subprocess

        environment = {**os.environ, "OLLAMA_HOST": self.host}
        self._server = subprocess.Popen(
            [str(self.binary), "serve"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"listening\n"

    def kill(self) -> None:
        """End the server that `serve` has started."""
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None

    def serve_again(self) -> None:
        """Wait for the server's end, and start it again."""
        assert self._server is not None
        self._server.communicate()
        self.serve()

    def did(self, what: str) -> list[str]:
        """What the journal has of a kind (`serve`, `create`, `run`, `think`, `load`, `unload`), in order."""
        return [name for kind, _, name in (line.partition(" ") for line in _journal(self.folder)) if kind == what]

    def models(self) -> set[str]:
        """What is installed."""
        return set(_read(self.folder / "models.json"))

    def options(self) -> list[str]:
        """What makes a sweep use it."""
        return ["--engine", "ollama", "--host", self.host, "--ollama", str(self.binary), "--model", MODEL]


# -- the program -------------------------------------------------------------------------------------------------------


def play(folder: Path, words: list[str]) -> int:
    """What `ollama WORDS` does; its exit code."""
    command, *rest = words
    step = _next_step(folder, command, rest[0] if rest else "")
    for word in rest:
        if word.startswith("--think"):
            _note(folder, f"think {word.partition('=')[2]}")
    if step.get("hangs"):
        signal.pause()
    if command == "serve" and "exit" not in step:
        Served(folder).serve()
    try:
        said = {"serve": _nothing, "create": _create, "run": _run}[command](rest, step)
    except _Refused as error:
        said, step = str(error), {"exit": 1}
    sys.stderr.write(step.get("says", said) + "\n")
    return int(step.get("exit", 0))


def _nothing(words: list[str], step: Script) -> str:
    return ""


def _create(words: list[str], step: Script) -> str:
    name, _, file = words
    if step.get("exit", 0) == 0 or step.get("makes"):
        _ask("/api/create", {"model": name, "modelfile": Path(file).read_text("utf-8")})
    return "success"


def _run(words: list[str], step: Script) -> str:
    answer = _ask("/api/generate", {"model": words[0], "prompt": sys.stdin.read(), "dies": step.get("dies", False)})
    sys.stdout.write(step.get("prints", "Hello.") + "\n\n")
    count = answer["prompt_eval_count"]
    lines = {
        "total duration": f"{READ_S + WROTE_S}s",
        "load duration": "1ms",
        "prompt eval count": f"{count} token(s)",
        "prompt eval duration": f"{READ_S}s",
        "prompt eval rate": f"{count / READ_S:.2f} tokens/s",
        "eval count": "2 token(s)",
        "eval duration": f"{WROTE_S}s",
        "eval rate": f"{2 / WROTE_S:.2f} tokens/s",
    }
    return "\n".join(f"{label}: {value}" for label, value in lines.items() if label not in step.get("without", ()))


class _Refused(Exception):
    """What the command says in place of an answer."""


def _ask(path: str, body: Script) -> Any:
    """The server's answer. By hand: to import what speaks HTTP takes longer than all else that a command does."""
    content = json.dumps(body).encode()
    asked = f"POST {path} HTTP/1.0\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
    try:
        connection = socket.create_connection(_address(), timeout=60)
    except OSError as error:
        raise _Refused(UNREACHABLE) from error
    with connection:
        try:
            connection.sendall(asked)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            answer = b""
    head, _, found = answer.partition(b"\r\n\r\n")
    if not found:
        raise _Refused(f'Error: Post "http://{os.environ["OLLAMA_HOST"]}/api/generate": EOF')
    if head.split()[1] != b"200":
        raise _Refused(f"Error: {json.loads(found)['error']}")
    return json.loads(found)


def _address() -> tuple[str, int]:
    """Where the server is, as the environment says."""
    host, _, port = os.environ["OLLAMA_HOST"].rpartition("/")[2].rpartition(":")
    return host, int(port)


# -- the server --------------------------------------------------------------------------------------------------------


class Served:
    """The server: models are kept in a file, what is loaded is not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: set[str] = set()
        self.leaving: dict[str, int] = {}
        self.raw_given: Counter[str] = Counter()

    def serve(self) -> None:
        """Answer until the end."""
        from http.server import ThreadingHTTPServer

        (self.folder / "pid").write_text(str(os.getpid()), "utf-8")
        with ThreadingHTTPServer(_address(), _handler_of(self)) as listening:
            sys.stdout.write("listening\n")
            sys.stdout.flush()
            listening.serve_forever()

    def raw_answer(self, path: str, body: Script) -> tuple[int, bytes] | None:
        """What the script has for a path, as it is."""
        raw = self._script().get("raw", {}).get(path)
        if raw is None or (path == "/api/generate" and not body.get("stream")):
            return None
        texts = [raw] if isinstance(raw, str) else raw
        self.raw_given[path] += 1
        return 200, texts[min(self.raw_given[path], len(texts)) - 1].encode()

    def written(self, method: str, path: str, body: Script) -> tuple[int, bytes]:
        """Status and JSON of the answer."""
        status, found = self.answer(method, path, body)
        return status, json.dumps(found).encode()

    def answer(self, method: str, path: str, body: Script) -> tuple[int, Any]:
        """Status and object of the answer."""
        models = _read(self.folder / "models.json")
        name = _tagged(str(body.get("model", "")))
        if path == "/api/create":
            import re

            num_ctx = re.findall(r"PARAMETER num_ctx (\d+)", body["modelfile"]) or [0]
            return self._keep({**models, name: int(num_ctx[-1])})
        if path == "/api/version":
            return 200, {"version": self._script().get("version", "0.34.0")}
        if path == "/api/tags":
            return 200, {"models": [{"name": known, "model": known, "digest": known, "size": 1} for known in models]}
        if path == "/api/ps":
            return 200, {"models": [_running(loaded, models.get(loaded, 0)) for loaded in self._loaded()]}
        if name not in models:
            return 404, {"error": f"model '{name}' not found"}
        if method == "DELETE":
            return self._keep({known: models[known] for known in models if known != name})
        if path == "/api/show":
            return 200, {"capabilities": self._script().get("capabilities", ["completion"]), "model_info": {}}
        return 200, self._generate(name, body)

    def _generate(self, name: str, body: Script) -> Any:
        if body.get("dies"):
            os._exit(1)
        if body.get("keep_alive") == 0:
            _note(self.folder, f"unload {name}")
            if name in self.loaded:
                self.leaving[name] = int(self._script().get("keeps", 0))
            return {"done": True, "done_reason": "unload"}
        self.leaving.pop(name, None)
        if "prompt" not in body:
            _note(self.folder, f"load {name}")
            if self._script().get("stops"):
                os.kill(os.getpid(), signal.SIGSTOP)
            self.loaded.add(name)
            return {"done": True, "done_reason": "load"}
        self.loaded.add(name)
        return {"done": True, "prompt_eval_count": len(body["prompt"].split()) + TEMPLATE_TOKENS}

    def _loaded(self) -> list[str]:
        for name, left in list(self.leaving.items()):
            self.leaving[name] = left - 1
            if left <= 0:
                del self.leaving[name]
                self.loaded.discard(name)
        return sorted(self.loaded)

    def _keep(self, models: Script) -> tuple[int, Any]:
        _write(self.folder / "models.json", models)
        return 200, {"status": "success"}

    def _script(self) -> Script:
        return _read(self.folder / "script.json")


def _running(name: str, num_ctx: int) -> Script:
    return {"name": name, "model": name, "digest": name, "size": 1, "size_vram": 0, "context_length": num_ctx or 4096}


def _handler_of(served: Served) -> type[BaseHTTPRequestHandler]:
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            return None

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            status, content = served.raw_answer(self.path, body) or served.written(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

    return Handler


# -- what all of them share --------------------------------------------------------------------------------------------


def _next_step(folder: Path, command: str, name: str) -> Script:
    done = sum(line.startswith(f"{command} ") for line in _journal(folder))
    _note(folder, f"{command} {name}")
    steps = _read(folder / "script.json").get(command) or [{}]
    return dict(steps[min(done, len(steps) - 1)])


def _journal(folder: Path) -> list[str]:
    file = folder / "journal.txt"
    return file.read_text("utf-8").splitlines() if file.exists() else []


def _note(folder: Path, line: str) -> None:
    with (folder / "journal.txt").open("a", encoding="utf-8") as journal:
        journal.write(line + "\n")


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _read(file: Path) -> Script:
    return dict(json.loads(file.read_text("utf-8")))


def _write(file: Path, content: Script) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps(content), "utf-8")
    os.replace(new, file)
