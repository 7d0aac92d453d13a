"""An Ollama server to talk to: found at the host, or our own on loopback for the time of the sweep.

Shared by the engines that use Ollama: version, /api/ps, /api/show, requests, unload.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ollama_sweep import process
from ollama_sweep.cells import Options, Scalar
from ollama_sweep.engine import EngineSettings
from ollama_sweep.errors import EngineMissing, EngineUnavailable
from ollama_sweep.host import orphans
from ollama_sweep.hosts import base_url as base_url
from ollama_sweep.model_files import cache_folder
from ollama_sweep.units import format_bytes

if TYPE_CHECKING:
    import httpx
    import ollama

MINIMUM_VERSION = (0, 4, 0)
START_S = 60.0
ANSWER_S = 5.0
REST_S = 30.0
RESTART_S = 120.0
VRAM_SETTLE_S = 5.0
"""Ollama itself waits so long for a GPU's memory to come back after an unload (server/sched.go)."""

HOW_TO_GET = "Install it from ollama.com, or set --ollama PATH"


def private_binaries() -> list[Path]:
    """The Ollamas that `make ollama` has built, newest version first."""
    built = [path for path in (cache_folder() / "ollama").glob("*/bin/ollama") if os.access(path, os.X_OK)]
    return sorted(built, key=lambda path: version_tuple(path.parent.parent.name), reverse=True)


def version_tuple(version: str) -> tuple[int, ...]:
    """`0.34.0-rc1` as (0, 34, 0), for comparisons."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def installed_binary(wanted: str | None) -> Path | None:
    """The `ollama` that the person named or has in PATH. Raises EngineUnavailable for a wrong --ollama."""
    if wanted:
        path = Path(wanted).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise EngineMissing(f"--ollama {wanted} is not a program. {HOW_TO_GET}")
        return path.absolute()
    found = shutil.which("ollama")
    return Path(found) if found else None


def any_binary(wanted: str | None) -> Path | None:
    """The installed `ollama`, else the newest private one, else None."""
    return installed_binary(wanted) or next(iter(private_binaries()), None)


def answering_version(url: str, timeout_s: float = 2.0) -> str | None:
    """The version of the Ollama server at a URL; None where none answers."""
    import httpx

    try:
        answer = httpx.get(f"{url}/api/version", timeout=timeout_s)
        return str(answer.json()["version"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


class OllamaServer:
    """The server of a sweep, found or started at the first use; started again where our own has died."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._url = base_url(settings.host, allow_remote=settings.allow_remote)
        self._binary: Path | None = None
        self._client: ollama.Client | None = None
        self._http: httpx.Client | None = None
        self._service: process.Service | None = None
        self._token = ""
        self._ledger_number: int | None = None
        self._applied: dict[str, Scalar] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="ollama-sweep-"))
        self.version = ""

    # -- finding and starting ------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Make sure that a server answers. Raises EngineUnavailable."""
        if self._service is not None:
            self._look_after_own()
        elif self._client is None:
            self._find()
        else:
            self.version = self._answer()

    def _look_after_own(self) -> None:
        """Our own server is started again where it has died or no longer answers."""
        assert self._service is not None
        if not self._service.is_alive:
            self._settings.say("The sweep's own Ollama server has died: it is started again")
        elif answering_version(self._url, ANSWER_S) is None:
            self._settings.say("The sweep's own Ollama server does not answer: it is ended and started again")
            self._service.end()
        else:
            return
        self._start_own()

    def _answer(self) -> str:
        """The version of the server that was found; a dead one is brought back where there is a way."""
        version = answering_version(self._url, ANSWER_S)
        if version is None and self._settings.restart_command:
            version = self._restart_found()
        if version is None:
            raise EngineUnavailable(f"the Ollama server at {self._url} does not answer")
        return version

    def _find(self) -> None:
        client = installed_binary(self._settings.ollama)
        if client is None and self._settings.host is not None:
            client = any_binary(None)
        version = None if self._settings.managed else answering_version(self._url)
        if version is not None and client is not None:
            self._binary = client
            self._use(version)
            self._name_orphans()
            return
        self._binary = any_binary(self._settings.ollama)
        if self._binary is None:
            raise EngineMissing(f"ollama was not found. {HOW_TO_GET}")
        if self._settings.host is not None and not self._settings.managed:
            raise EngineUnavailable(f"no Ollama server answers at {self._url}. Start it with: ollama serve")
        self._start_own()

    def apply(self, server: Options) -> bool:
        """Give our own server these settings; true where it had to be started again. Raises EngineUnavailable."""
        if dict(server) == self._applied:
            return False
        if not self.is_own:
            raise EngineMissing("settings of the server can be swept only with `server: managed`")
        assert self._service is not None
        self._service.end()
        self._applied = dict(server)
        self._start_own()
        return True

    def _use(self, version: str) -> None:
        import ollama

        if version_tuple(version) < MINIMUM_VERSION and version != "0.0.0":
            need = ".".join(str(part) for part in MINIMUM_VERSION)
            raise EngineMissing(f"Ollama {version} is too old (need {need} or newer)")
        self.version = version
        self._hang_up()
        self._client = ollama.Client(host=self._url, timeout=ANSWER_S)

    def _start_own(self) -> None:
        """Start `ollama serve` on a free loopback port; it is recorded before it exists."""
        self._url = f"http://127.0.0.1:{_free_port()}"
        self._end_left_over_runners()
        self._token = uuid.uuid4().hex
        self._ledger_number = self._settings.ledger.record("process", self._token, {"folder": str(self.folder)})
        log = self.folder / "ollama-serve.log"
        self._settings.trace(f"OLLAMA_HOST={self._url} {self._binary} serve  (log: {log})")
        self._service = process.spawn_service(
            [str(self._binary), "serve"], env=self._environment(), log=log, token=self._token
        )
        deadline = time.monotonic() + START_S
        while (version := answering_version(self._url, 1.0)) is None:
            if not self._service.is_alive or time.monotonic() > deadline:
                self._service.end()
                raise EngineUnavailable(f"`{self._binary} serve` did not start: {_last_line(log)}")
            time.sleep(0.05)
        self._use(version)

    def _end_left_over_runners(self) -> None:
        """A killed `ollama serve` leaves its llama-server behind, which goes on holding memory."""
        if self._token:
            process.end_by_token(self._token)
        self._settle()

    def _name_orphans(self) -> None:
        """Someone else's llama-server without a parent is not ours to end, but the person should know of it."""
        for orphan in orphans():
            size = format_bytes(orphan.memory_bytes)
            self._settings.say(f"Warning: llama-server (pid {orphan.pid}) has lost its Ollama and holds {size}")

    def _settle(self) -> None:
        if self._ledger_number is not None:
            self._settings.ledger.settle(self._ledger_number)
            self._ledger_number = None

    def _environment(self) -> dict[str, str]:
        named = {variable(name): _written(value) for name, value in self._applied.items()}
        return {**os.environ, **named, "OLLAMA_HOST": self._url}

    # -- what the engines use ------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        return self._url

    @property
    def is_own(self) -> bool:
        return self._service is not None

    @property
    def binary(self) -> Path:
        assert self._binary is not None
        return self._binary

    @property
    def client(self) -> ollama.Client:
        """The connected client. Raises EngineUnavailable."""
        if self._client is None:
            self.connect()
        assert self._client is not None
        return self._client

    def command(self, *words: str) -> list[str]:
        """The argument list of an `ollama` command, traced for --verbose."""
        argv = [str(self.binary), *words]
        self._settings.trace(" ".join(argv))
        return argv

    def command_environment(self) -> dict[str, str]:
        """The environment in which `ollama` commands reach this server."""
        return {**os.environ, "OLLAMA_HOST": self._url}

    @property
    def http(self) -> httpx.Client:
        """For what the client has no call for (truncate, deadlines, pieces); kept open, so that no run pays for it."""
        import httpx

        if self._http is None:
            self._http = httpx.Client(base_url=self._url)
        return self._http

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> httpx.Response:
        """One request and its whole answer. Raises httpx.HTTPError."""
        import httpx

        return self.http.post(path, json=body, timeout=httpx.Timeout(timeout_s, connect=ANSWER_S))

    @property
    def own_pid(self) -> int | None:
        """The process of our own server."""
        return self._service.pid if self._service is not None else None

    def loaded(self) -> list[Any]:
        """The models in /api/ps. Raises EngineUnavailable."""
        return list(self._ask(lambda client: client.ps().models))

    def installed(self) -> dict[str, Any]:
        """What /api/tags says of every installed model, by its name. Raises EngineUnavailable."""
        return {str(entry.model): entry for entry in self._ask(lambda client: client.list().models)}

    def show(self, name: str) -> Any:
        """/api/show of a model. Raises EngineUnavailable."""
        return self._ask(lambda client: client.show(name))

    def delete(self, name: str) -> bool:
        """Remove a model; False where it was not there. Raises EngineUnavailable."""
        import ollama

        try:
            self._ask(lambda client: client.delete(name))
        except ollama.ResponseError as error:
            if error.status_code == 404:
                return False
            raise EngineUnavailable(f"Ollama could not remove {name}: {error.error}") from error
        return True

    def _ask(self, question: Any) -> Any:
        import httpx

        try:
            return question(self.client)
        except (ConnectionError, httpx.HTTPError) as error:
            raise EngineUnavailable(f"the Ollama server at {self._url} does not answer: {error}") from error

    def rest(self, names: set[str], *, settle_vram: bool) -> None:
        """Unload these models and wait until the server has let go of them. Raises EngineUnavailable."""
        import httpx

        deadline = time.monotonic() + REST_S
        for name in names:
            try:
                self.post("/api/generate", {"model": name, "keep_alive": 0}, ANSWER_S)
            except httpx.HTTPError:
                continue
        while any(is_named(entry, name) for entry in self.loaded() for name in names):
            if time.monotonic() > deadline:
                return self._escalate()
            time.sleep(0.1)
        if settle_vram:
            time.sleep(VRAM_SETTLE_S)
        return None

    def _restart_found(self) -> str | None:
        """Run the person's restart command and wait for the server; its version, None where it stays away."""
        words = list(self._settings.restart_command)
        self._settings.say(f"Restarting Ollama: {' '.join(words)}")
        try:
            done = process.run(words, timeout_s=RESTART_S)
        except OSError as error:
            raise EngineMissing(f"restart_command {words[0]} cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            self._settings.say(f"restart_command ended with {done.returncode}: {done.stderr.strip()[-200:]}")
        deadline = time.monotonic() + RESTART_S
        while (version := answering_version(self._url, 1.0)) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        return version

    def _escalate(self) -> None:
        if self._service is None:
            if not self._settings.restart_command or self._restart_found() is None:
                raise EngineUnavailable(f"the Ollama server at {self._url} is stuck with a model; it needs a restart")
            return
        self._settings.say("Ollama is stuck with a model: its server is started again")
        self._service.end()
        self._start_own()

    def _hang_up(self) -> None:
        """Close the connections to the server."""
        for connected in (self._client, self._http):
            if connected is not None:
                connected.close()
        self._client = self._http = None

    def close(self) -> None:
        """End our own server, if there is one."""
        self._hang_up()
        if self._service is not None:
            self._service.end()
        self._end_left_over_runners()
        shutil.rmtree(self.folder, ignore_errors=True)


def is_named(entry: Any, name: str) -> bool:
    """An entry of /api/ps is the model of this name; Ollama adds the tag `latest` where there is none."""
    return str(entry.name or entry.model).removesuffix(":latest") == name.removesuffix(":latest")


def tagged(model: str) -> str:
    """A model's name as /api/tags has it, with its tag."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def variable(name: str) -> str:
    """The environment variable of a server setting: `kv_cache_type` is OLLAMA_KV_CACHE_TYPE."""
    return name if name.isupper() else f"OLLAMA_{name.upper()}"


def _written(value: Scalar) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
