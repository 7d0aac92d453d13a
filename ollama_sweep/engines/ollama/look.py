"""What `doctor` sees of Ollama: its program, its server, that server's settings, and what is loaded there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.finding import Finding, bad, of_error, ok, warning
from ollama_sweep.core.units import format_bytes
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.ollama.listed import Loaded, asked_of, installed_in, loaded_in
from ollama_sweep.engines.ollama.server import (
    MINIMUM_VERSION,
    answering_version,
    any_binary,
    installed_binary,
    names_a_server,
    variable,
    version_tuple,
)
from ollama_sweep.engines.shared.look import Asked, Look
from ollama_sweep.engines.shared.reached import Told
from ollama_sweep.machine import ports, process
from ollama_sweep.machine.address import Address, base_url, is_encrypted

BY_REQUESTS = "ollama_http"
VERSION_S = 10.0
ANSWER_S = 5.0
HOW_TO_GET = "Install it from ollama.com, or build a private one: make ollama"
SCRATCH = ("ollama-sweep-scratch-", "ollama-sweep-base-")
INFLATING = (((0, 4, 0), (0, 30, 0)), ((0, 30, 1), (0, 33, 3)))
"""Versions (from, before) whose printed rate counts cached tokens as work (docs/measurement.md)."""
_SERVICE_MODELS = Path("/usr/share/ollama/.ollama/models")
"""Where Ollama's own service on Linux keeps its models."""


class OllamaLook(Look):
    """Program and server as a sweep would find them; problems are kept for `findings`."""

    environment: Mapping[str, str]

    def __init__(self, settings: EngineSettings, asked: Asked) -> None:
        super().__init__(settings, asked)
        self._installed: Path | None = None
        self._program: Path | None = None
        self._url = ""
        self._version: str | None = None
        self._wrong: list[Finding] = []
        self.environment = os.environ
        self.origin = self._find()

    @property
    def _is_by_requests(self) -> bool:
        """The engine would be one that needs no program: it is named, or `auto` takes it because a server is named."""
        is_chosen = self._asked.is_open and self._program is None and names_a_server(self._settings)
        return self._asked.engine == BY_REQUESTS or is_chosen

    @property
    def _is_served(self) -> bool:
        """There is a server that a sweep would use."""
        is_usable = self._installed is not None or self._is_by_requests
        return self._version is not None and is_usable and not self._settings.managed

    def _find(self) -> str:
        """Looks for both; whose settings count, in words."""
        try:
            self._installed = installed_binary(self._settings.ollama)
            self._program = self._installed or any_binary(None)
        except SweepError as error:
            self._wrong.append(of_error("ollama", error))
        try:
            self._url = base_url(self._settings.host, allow_remote=self._settings.allow_remote)
        except SweepError as error:
            self._wrong.append(of_error("server", error))
            return "in this terminal"
        if not self._settings.managed:
            self._version = answering_version(self._url)
        if self._version is None:
            named = {variable(name): str(value) for name, value in self._asked.server}
            self.environment = {**os.environ, **named}
            return "in this terminal and the sweep file" if named else "in this terminal"
        self.is_elsewhere = self._is_served and ports.is_elsewhere(self._url)
        if self.is_elsewhere:
            self.environment = {}
            return f"of the server at {self._url} (cannot be seen from here)"
        seen = ports.server_settings(urlsplit(self._url).port or 0)
        self.environment = os.environ if seen is None else seen
        return "in this terminal (the server's own cannot be seen)" if seen is None else "of the server"

    @property
    def is_there(self) -> bool:
        return self._program is not None

    @property
    def may_open(self) -> bool:
        """With nothing to look up, or beside a running sweep, no server is started."""
        if self._wrong or (self._program is None and not self._is_served):
            return False
        if self._is_served:
            return True
        starts_own = self._settings.host is None or self._settings.managed
        return starts_own and bool(self._asked.models) and not self._asked.sweep_runs

    def findings(self, *, measures: bool) -> Iterator[Finding]:
        yield from self._wrong
        if self._program is not None:
            client = _client_version(self._program)
            private = "" if self._installed else ", the private build"
            yield ok("ollama", f"{self._program}, version {client or 'unknown'}{private}")
            if self._url:
                yield from self._of_server(client)
        elif self._is_by_requests and self._url and (self._is_served or self._settings.host is not None):
            yield ok("ollama", "no program is here, and none is needed to measure a server (ollama_http)")
            yield from self._of_server(None)
        elif not any(finding.check == "ollama" for finding in self._wrong):
            yield self._of_no_program(measures)

    def _of_no_program(self, measures: bool) -> Finding:
        if measures:
            way = f"; or measure the server at {self._url}: --engine {BY_REQUESTS}" if self._version else ""
            return bad("ollama", "ollama was not found", f"{HOW_TO_GET}{way}")
        if self._asked.is_open:
            text = "ollama was not found: the embedded llama.cpp (engine llamacpp) would measure instead"
            return warning("ollama", text, HOW_TO_GET)
        return ok("ollama", f"ollama was not found; engine {self._asked.engine} does not need it")

    def _of_server(self, client: str | None) -> Iterator[Finding]:
        if self._settings.managed:
            yield ok("server", "the sweep starts its own and stops it at the end (server: managed)")
        elif self._is_served:
            where = ", on another machine or in a container" if self.is_elsewhere else ""
            yield ok("server", f"answers at {self._url}, version {self._version}{where}")
            if client and client != self._version:
                text = f"the program is version {client}, the server {self._version}"
                yield warning("server", text, "Restart the server after an update, or name its program with --ollama")
            yield from self._of_loaded()
        elif self._settings.host is not None:
            if self._version is None:
                yield bad("server", f"no Ollama server answers at {self._url}", "Start it with: ollama serve")
            else:
                text = f"one answers at {self._url}, but no ollama program is in PATH to use it"
                yield bad("server", text, f"Name the program with --ollama PATH, or use --engine {BY_REQUESTS}")
        else:
            text = f"none answers at {self._url}"
            if self._version is not None:
                text = f"one answers at {self._url}, but no ollama program is in PATH to use it"
            yield ok("server", f"{text}; a sweep starts its own and stops it at the end")
        yield from of_version(self._version or client or "")

    def _of_loaded(self) -> Iterator[Finding]:
        """Models that other programs have loaded on the server, and what a dead sweep left there."""
        import httpx

        try:
            with httpx.Client(base_url=self._url, verify=is_encrypted(self._url)) as http:
                loaded = asked_of(http, "/api/ps", loaded_in, ANSWER_S)
                names = list(asked_of(http, "/api/tags", installed_in, ANSWER_S))
        except SweepError as error:
            yield bad("server", f"{self._url} does not say what is loaded: {error}", "Restart the server")
            return
        if not self._asked.models:
            yield _of_installed([name for name in names if not name.startswith(SCRATCH)])
        yield from self._of_entries(loaded)
        for name in names:
            if name.startswith(SCRATCH) and not self._asked.sweep_runs:
                text = f"{name} was left by a sweep that was killed, or belongs to one with another database"
                yield warning("left-over", text, f"The next run of that sweep removes it, or: ollama rm {name}")

    def _of_entries(self, loaded: Sequence[Loaded]) -> Iterator[Finding]:
        foreign = [entry for entry in loaded if not entry.name.startswith(SCRATCH)]
        self.is_shared = bool(loaded)
        for entry in foreign:
            held = f" ({format_bytes(entry.size)})" if entry.size else ""
            text = f"{entry.name}{held} is loaded on the server: it shares memory with each cell"
            yield warning("loaded", text, f"ollama stop {entry.name}")
        if not foreign:
            yield ok("loaded", "no other model is loaded on the server")

    def disks(self, *, measures: bool) -> Iterator[tuple[str, Path, int]]:
        if self._program is not None and not self.is_elsewhere:
            importing = _size_of_files(self._asked.models) if measures else 0
            yield "Ollama's models", models_folder(self.environment), importing

    @classmethod
    def reach(cls, address: Address, timeout_s: float) -> Told:
        from ollama_sweep.engines.ollama.reach import reach

        return reach(address, timeout_s)

    @classmethod
    def living_host(cls, where: str, settings: EngineSettings) -> str | None:
        """A server that a sweep had for itself is gone with it."""
        if not where.startswith("http"):
            return None
        with contextlib.suppress(SweepError):
            url = base_url(where, allow_remote=settings.allow_remote)
            return url if answering_version(url) is not None else None
        return None


def _size_of_files(models: tuple[str, ...]) -> int:
    """Bytes of the .gguf files among these, which Ollama would import."""
    sizes = []
    for model in models:
        if model.endswith(".gguf"):
            with contextlib.suppress(OSError):
                sizes.append(Path(model).expanduser().stat().st_size)
    return sum(sizes)


def models_folder(settings: Mapping[str, str]) -> Path:
    """Where the Ollama with this environment keeps its models."""
    if settings.get("OLLAMA_MODELS"):
        return Path(settings["OLLAMA_MODELS"])
    own = Path(settings.get("HOME") or Path.home()) / ".ollama" / "models"
    return _SERVICE_MODELS if not own.exists() and _SERVICE_MODELS.exists() else own


def _client_version(program: Path) -> str | None:
    """The version of the program itself, not that of a server it talks to; None where it does not say."""
    environment = {**os.environ, "OLLAMA_HOST": "127.0.0.1:1"}
    try:
        done = process.run([str(program), "--version"], timeout_s=VERSION_S, env=environment)
    except OSError:
        return None
    numbers = [word for line in done.stdout.splitlines() if "version is" in line for word in line.split()[-1:]]
    return numbers[-1] if numbers and done.returncode == 0 else None


def _of_installed(names: list[str]) -> Finding:
    if not names:
        return warning("models", "no model is installed", "For example: ollama pull llama3.2:1b")
    shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return ok("models", f"{len(names)} installed: {shown}")


def of_version(version: str) -> Iterator[Finding]:
    """What is known of this version's rates."""
    number = version_tuple(version)
    if number and number != (0, 0, 0) and number < MINIMUM_VERSION:
        need = ".".join(str(part) for part in MINIMUM_VERSION)
        yield bad("ollama", f"Ollama {version} is too old (need {need} or newer)", "Update it from ollama.com")
    elif any(first <= number < before for first, before in INFLATING):
        text = f"Ollama {version} counts cached prompt tokens as work, so a repeated prompt looks far too fast"
        yield ok("rates", text, "Nothing to do: every run's prompt begins with a new number, so none is repeated")
