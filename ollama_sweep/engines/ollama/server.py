"""An Ollama server to talk to: found at the host, or our own on loopback for the time of the sweep.

Shared by the engines that use Ollama: version, /api/ps, /api/show, requests, unload.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.units import format_bytes
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.ollama.listed import Installed, Loaded, Shown, asked_of, installed_in, loaded_in, shown_in
from ollama_sweep.engines.ollama.output import error_text
from ollama_sweep.engines.ollama.programs import HOW_TO_GET, is_for_own_server, last_line, restart
from ollama_sweep.engines.ollama.programs import any_binary as any_binary
from ollama_sweep.engines.ollama.programs import installed_binary as installed_binary
from ollama_sweep.engines.ollama.programs import version_tuple as version_tuple
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.connections import Connections, limits
from ollama_sweep.engines.shared.reached import Unreached
from ollama_sweep.machine import address, process
from ollama_sweep.machine.address import base_url, is_encrypted, is_loopback
from ollama_sweep.machine.computer import orphans
from ollama_sweep.machine.hosts import refusals

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
MINIMUM_VERSION = (0, 4, 0)
START_S = 60.0
ANSWER_S = 5.0
REST_S = 30.0
LONGEST_SAID = 400
STUCK = "is stuck with a model; it needs a restart"
FIRST_LOOK_S, LAST_LOOK_S = 0.01, 0.1
"""How long to wait before looking again whether a model is gone: a small one is at once."""
VRAM_SETTLE_S = 5.0
"""Ollama itself waits so long for a GPU's memory to come back after an unload (server/sched.go)."""


def answering_version(url: str, timeout_s: float = 2.0, client: httpx.Client | None = None) -> str | None:
    """The version of the Ollama server at a URL; None where none answers. Asked of an open `client` it costs little."""
    import httpx

    try:
        with contextlib.nullcontext(client) if client else httpx.Client(verify=is_encrypted(url)) as asked:
            answer = asked.get(f"{url}/api/version", timeout=timeout_s)
        return gate.text("version", gate.mapping("/api/version", gate.loads(answer.content)).get("version")) or None
    except (httpx.HTTPError, gate.Nonsense):
        return None


class OllamaServer:
    """The server of a sweep, found or started at the first use; started again where our own has died."""

    def __init__(self, settings: EngineSettings, *, needs_program: bool = True) -> None:
        self._settings = settings
        self._needs_program = needs_program
        self._url = base_url(settings.host, allow_remote=settings.allow_remote)
        self._binary: Path | None = None
        self._is_found = False
        self._http: httpx.Client | None = None
        self._service: process.Service | None = None
        self._token = ""
        self._ledger_number: int | None = None
        self._applied: dict[str, Scalar] = {}
        self._stuck: frozenset[str] = frozenset()
        self._was_away = False
        self._named_orphans: set[int] = set()
        self._folder: Path | None = None
        self.connections = Connections()
        self.version = ""

    @property
    def folder(self) -> Path:
        """For Modelfiles and logs; made when it is first needed, and gone with `close`."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ollama-sweep-"))
        return self._folder

    # -- finding and starting ------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Make sure that a server answers and that no model is stuck in it. Raises EngineUnavailable."""
        if self._service is not None:
            self._look_after_own()
        elif not self._is_found:
            self._find()
        else:
            self.version = self._answer()
        if self.is_stuck and self._holds(self._stuck):
            self.version = self._restart_found(STUCK)
        self._stuck = frozenset()

    def _look_after_own(self) -> None:
        """Our own server is started again where it has died or no longer answers."""
        assert self._service is not None
        if not self._service.is_alive:
            self._settings.say("The sweep's own Ollama server has died: it is started again")
        elif answering_version(self._url, ANSWER_S, self.http) is None:
            self._settings.say("The sweep's own Ollama server does not answer: it is ended and started again")
            self._service.end()
        else:
            return
        self._start_own()

    def _answer(self) -> str:
        """The version of the server that was found; a dead one is brought back where there is a way."""
        version = answering_version(self._url, ANSWER_S, self.http)
        if version is None:
            self._was_away = True
            version = self._restart_found("does not answer")
        if self._was_away:
            self._was_away = False
            self.name_orphans()
        return version

    def _find(self) -> None:
        client = installed_binary(self._settings.ollama)
        if client is None and self._settings.host is not None:
            client = any_binary(None)
        version = None if self._settings.managed else answering_version(self._url)
        if version is not None and (client is not None or not self._needs_program):
            self._binary = client
            self._use(version)
            self.name_orphans()
            return
        self._binary = any_binary(self._settings.ollama)
        is_asked_for = names_a_server(self._settings) and not self._settings.managed
        if self._binary is None and (self._needs_program or not is_asked_for):
            raise EngineMissing(f"ollama was not found. {HOW_TO_GET}{self._way_out(version, is_asked_for)}")
        if not self._settings.managed and (
            self._binary is None or self._settings.host is not None or not self._is_on_loopback
        ):
            raise self._unreached()
        self._start_own()

    def _unreached(self) -> EngineUnavailable:
        """Why no Ollama answers there, in the words of `hosts check`."""
        from ollama_sweep.engines.ollama.reach import reach  # which needs this module

        there = address.server(self._url, allow_remote=True, port=address.OLLAMA_PORT)
        try:
            reach(there, ANSWER_S)
        except Unreached as error:
            known = refusals.why(error)
            if known is None or not known.is_silent_port:
                return EngineUnavailable(f"the server at {self._url} {error.text}. {error.hint}")
            return EngineUnavailable(f"no Ollama server answers at {self._url}. {error.hint}")
        return EngineUnavailable(f"no Ollama server answered at {self._url}, and now one does")

    def _way_out(self, version: str | None, is_asked_for: bool) -> str:
        """A sentence for who has a server and no program."""
        if self._needs_program and (version is not None or is_asked_for):
            return f". The server at {self._url} can be measured without it: --engine ollama_http"
        return ""

    @property
    def _is_on_loopback(self) -> bool:
        return is_loopback(urlsplit(self._url).hostname or "")

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
        if version_tuple(version) < MINIMUM_VERSION and version != "0.0.0":
            need = ".".join(str(part) for part in MINIMUM_VERSION)
            raise EngineMissing(f"Ollama {version} is too old (need {need} or newer)")
        self.version = version
        self._hang_up()
        self._is_found = True

    def _start_own(self) -> None:
        """Start `ollama serve` on a free loopback port; it is recorded before it exists."""
        self._url = f"http://127.0.0.1:{_free_port()}"
        self._end_left_over()
        self._record_token()
        log = self.folder / "ollama-serve.log"
        self._settings.trace(f"OLLAMA_HOST={self._url} {self._binary} serve  (log: {log})")
        self._service = process.spawn_service(
            [str(self._binary), "serve"],
            env=self._environment(),
            log=log,
            token=self._token,
            needs=is_for_own_server,
        )
        deadline = time.monotonic() + START_S
        while (version := answering_version(self._url, 1.0)) is None:
            if not self._service.is_alive or time.monotonic() > deadline:
                self._service.end()
                raise EngineUnavailable(f"`{self._binary} serve` did not start: {last_line(log)}")
            time.sleep(0.05)
        self._use(version)

    def _record_token(self) -> None:
        self._token = uuid.uuid4().hex
        self._ledger_number = self._settings.ledger.record("process", self._token, {"folder": str(self.folder)})

    def _end_left_over(self) -> None:
        """A killed `ollama serve` leaves its llama-server behind, which goes on holding memory."""
        if self._token:
            process.end_by_token(self._token)
        self._settle()

    def name_orphans(self) -> None:
        """Someone else's llama-server without a parent is not ours to end, but the person should know of it, once."""
        for orphan in orphans() if not self.is_own and self._is_on_loopback else ():
            if orphan.pid not in self._named_orphans:
                self._named_orphans.add(orphan.pid)
                size = format_bytes(orphan.memory_bytes)
                self._settings.say(f"Warning: llama-server (pid {orphan.pid}) has lost its Ollama and holds {size}")

    def _settle(self) -> None:
        if self._ledger_number is not None:
            self._settings.ledger.settle(self._ledger_number)
            self._ledger_number = None

    def _environment(self) -> dict[str, str]:
        named = {variable(name): _written(value) for name, value in self._applied.items()}
        return {**self._command_environment(), **named}

    # -- what the engines use ------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        return self._url

    @property
    def is_own(self) -> bool:
        return self._service is not None

    @property
    def binary(self) -> Path | None:
        """The program; None where a server is measured and there is none here."""
        return self._binary

    def record_commands(self) -> None:
        """Before anything is made with `ollama` commands: a client that outlives this session is found by its token."""
        if not self._token:
            self._record_token()

    def command(self, *words: str, timeout_s: float, stdin: bytes) -> process.Completed:
        """Run an `ollama` command, traced for --verbose. Raises EngineUnavailable where it never reached the server."""
        if self._binary is None:
            raise EngineMissing(f"ollama was not found. {HOW_TO_GET}")
        self.record_commands()
        argv = [str(self._binary), *words]
        self._settings.trace(" ".join(argv))
        env = self._command_environment()
        done = process.run(argv, stdin=stdin, timeout_s=timeout_s, env=env, token=self._token)
        if done.returncode != 0 and "could not connect" in (text := error_text(done.stderr)):
            raise EngineUnavailable(text)
        return done

    def _command_environment(self) -> dict[str, str]:
        return {**os.environ, "OLLAMA_HOST": self._url}

    @property
    def http(self) -> httpx.Client:
        """For what the client has no call for (truncate, deadlines, pieces); kept open, so that no run pays for it."""
        import httpx

        if self._http is None:
            self._http = httpx.Client(
                base_url=self._url,
                verify=is_encrypted(self._url),
                limits=limits(),
                event_hooks={"request": [self.connections.watched]},
            )
        return self._http

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> httpx.Response:
        """One request and its whole answer. Raises httpx.HTTPError."""
        import httpx

        return self.http.post(path, json=body, timeout=httpx.Timeout(timeout_s, connect=ANSWER_S))

    @property
    def own_pid(self) -> int | None:
        """The process of our own server."""
        return self._service.pid if self._service is not None else None

    def loaded(self) -> list[Loaded]:
        """The models in /api/ps. Raises EngineUnavailable."""
        return self._listed("/api/ps", loaded_in)

    def installed(self) -> dict[str, Installed]:
        """What /api/tags says of every installed model, by its name. Raises EngineUnavailable."""
        return self._listed("/api/tags", installed_in)

    def show(self, name: str) -> Shown:
        """/api/show of a model. Raises EngineUnavailable."""
        return self._listed("/api/show", shown_in, {"model": name})

    def _listed(self, path: str, read: Callable[[Mapping[str, Any]], T], body: Mapping[str, str] | None = None) -> T:
        if not self._is_found:
            self.connect()
        return asked_of(self.http, path, read, ANSWER_S, body)

    def delete(self, name: str) -> bool:
        """Remove a model; False where it was not there. Raises EngineUnavailable."""
        import httpx

        if not self._is_found:
            self.connect()
        try:
            answer = self.http.request("DELETE", "/api/delete", json={"model": name}, timeout=ANSWER_S)
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"the Ollama server at {self._url} does not answer: {error}") from error
        if answer.is_error and answer.status_code != httpx.codes.NOT_FOUND:
            raise EngineUnavailable(f"Ollama could not remove {name}: {answer.text[:LONGEST_SAID].strip()}")
        return not answer.is_error

    def import_file(self, name: str, file: Path, timeout_s: float) -> None:
        """Give the server a .gguf file as a model of this name, without the program. Raises CellFailed (reason
        `create`), EngineUnavailable.
        """
        import httpx
        import ollama

        client: Any = ollama.Client(host=self._url, timeout=timeout_s, verify=is_encrypted(self._url))
        try:
            client.create(model=name, files={file.name: client.create_blob(file)})
        except ollama.ResponseError as error:
            raise CellFailed(Status.ERROR, "create", str(error.error)) from error
        except (ConnectionError, httpx.HTTPError) as error:
            raise EngineUnavailable(f"the Ollama server at {self._url} does not answer: {error}") from error
        except (ValueError, TypeError) as error:  # what the client cannot read
            raise EngineUnavailable(f"the Ollama server at {self._url} answers nonsense: {error}") from error
        finally:
            client.close()

    @property
    def is_stuck(self) -> bool:
        """It did not let go of a model, and nothing has shown since that it has."""
        return bool(self._stuck)

    def _holds(self, names: Set[str]) -> bool:
        return any(is_named(entry, name) for entry in self.loaded() for name in names)

    def rest(self, names: set[str], *, settle_vram: bool) -> None:
        """Unload these models and wait until the server has let go of them. Raises EngineUnavailable."""
        import httpx

        deadline = time.monotonic() + (0.0 if self._stuck & names else REST_S)
        for name in names:
            try:
                self.post("/api/generate", {"model": name, "keep_alive": 0}, ANSWER_S)
            except httpx.HTTPError:
                continue
        pause_s = FIRST_LOOK_S
        while self._holds(names):
            if time.monotonic() > deadline:
                return self._escalate(names)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_LOOK_S)
        if settle_vram:
            time.sleep(VRAM_SETTLE_S)
        return None

    def _escalate(self, names: set[str]) -> None:
        if self._service is None:
            self._stuck |= names
            self._restart_found(STUCK)
            self._stuck = frozenset()
            return
        self._settings.say("Ollama is stuck with a model: its server is started again")
        self._service.end()
        self._start_own()

    def _restart_found(self, trouble: str) -> str:
        """The version of a server that the person's command has brought back. Raises EngineUnavailable."""
        words, what = self._settings.restart_command, f"the Ollama server at {self._url} {trouble}"
        if not words:
            raise EngineUnavailable(what)
        self._settings.say(f"Restarting Ollama: {' '.join(words)}")
        env = self._command_environment() if self._settings.host else os.environ
        failure = restart(words, env=env, log=self.folder / "restart.log", is_back=self._is_back)
        if failure:
            raise EngineUnavailable(f"{what}; {failure}")
        self.name_orphans()
        return answering_version(self._url, ANSWER_S) or self.version

    def _is_back(self) -> bool:
        """One that is stuck goes on answering until it has ended."""
        try:
            return answering_version(self._url, 1.0) is not None and not self._holds(self._stuck)
        except EngineUnavailable:
            return False

    def _hang_up(self) -> None:
        """Close the connections to the server."""
        if self._http is not None:
            self._http.close()
        self._http, self._is_found = None, False

    def close(self) -> None:
        """End our own server, if there is one."""
        self._hang_up()
        self.connections.close()
        if self._service is not None:
            self._service.end()
        self._end_left_over()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def names_a_server(settings: EngineSettings) -> bool:
    """The person has said where a server is: in the sweep, or by OLLAMA_HOST."""
    return bool(settings.host or os.environ.get("OLLAMA_HOST"))


def is_named(entry: Loaded, name: str) -> bool:
    """An entry of /api/ps is the model of this name; Ollama adds the tag `latest` where there is none."""
    return entry.name.removesuffix(":latest") == name.removesuffix(":latest")


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
