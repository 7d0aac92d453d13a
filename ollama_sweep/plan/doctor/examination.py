"""The checks of `doctor`: can a sweep run here, and would its numbers be true? Looks, and leaves nothing behind.

A model is loaded only to count a prompt whose length no sweep has learned yet, with the smallest context, and only
where nothing else is loaded and no sweep runs: a look must not disturb a measurement.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ollama_sweep import engines
from ollama_sweep.core.errors import CellFailed, ConfigError, SweepError
from ollama_sweep.core.units import format_bytes
from ollama_sweep.engines.base import Engine, EngineSettings, ModelInfo
from ollama_sweep.engines.ollama import server as ollama_server
from ollama_sweep.machine import computer, ports, process
from ollama_sweep.plan import prompts, ranges
from ollama_sweep.plan.doctor import disturbances, places
from ollama_sweep.plan.doctor import model as checked_model
from ollama_sweep.plan.doctor.finding import Finding, bad, of_error, ok, warning
from ollama_sweep.plan.doctor.model import Length, Subject
from ollama_sweep.plan.models import ALL, usable
from ollama_sweep.store.rows import SweepRow

VERSION_S = 10.0
ANSWER_S = 5.0
BYTES_PER_TOKEN = 4
LARGEST_COUNTED_IMPORT_BYTES = 1 << 30
"""A larger .gguf is not imported into Ollama only to count a prompt."""
INFLATING = (((0, 4, 0), (0, 30, 0)), ((0, 30, 1), (0, 33, 3)))
"""Versions (from, before) whose printed rate counts cached tokens as work (docs/measurement.md)."""
HOW_TO_GET = "Install it from ollama.com, or build a private one: make ollama"
SCRATCH = ("ollama-sweep-scratch-", "ollama-sweep-base-")


class Examination:
    """One look at everything; `findings` yields a line after the other, and nothing is left when it ends."""

    def __init__(self, subject: Subject, settings: EngineSettings, db: Path, *, allow_network: bool = False) -> None:
        self._subject = subject
        self._settings = settings
        self._db = db
        self._allow_network = allow_network
        self._installed: Path | None = None
        self._program: Path | None = None
        self._url = ""
        self._version: str | None = None
        self._environment: Mapping[str, str] = os.environ
        self._wrong: list[Finding] = []
        self._sweep_runs = False
        self._is_shared = False

    def findings(self) -> Iterator[Finding]:
        """Engine, model, prompt, disk and database, then what would spoil numbers."""
        machine = computer.machine()
        holder = places.writer(self._db)
        self._sweep_runs = holder is not None
        origin = self._find()
        quiet = list(disturbances.findings(machine, self._environment, origin, sweep_runs=self._sweep_runs))
        yield ok("machine", machine.line())
        if self._subject.told:
            yield ok("sweep", self._subject.told)
        if holder is not None:
            text = f"a sweep is running (pid {holder.pid}): nothing is loaded or started beside it"
            yield ok("sweep", text, "Its progress: ollama-sweep status")
        yield from self._of_ollama()
        yield from self._of_engine(machine)
        yield places.of_disk("the database", self._db.resolve().parent)
        if self._program is not None:
            yield places.of_disk("Ollama's models", places.models_folder(self._environment), self._importing_bytes())
        yield from places.of_database(self._db, allow_network=self._allow_network)
        yield from quiet

    # -- program and server --------------------------------------------------------------------------------------

    def _find(self) -> str:
        """Program and server as a sweep would find them, and whose settings count; problems are kept for later."""
        try:
            self._installed = ollama_server.installed_binary(self._settings.ollama)
            self._program = self._installed or ollama_server.any_binary(None)
        except SweepError as error:
            self._wrong.append(of_error("ollama", error))
        try:
            self._url = ollama_server.base_url(self._settings.host, allow_remote=self._settings.allow_remote)
        except SweepError as error:
            self._wrong.append(of_error("server", error))
            return "in this terminal"
        if not self._settings.managed:
            self._version = ollama_server.answering_version(self._url)
        if self._version is None:
            self._environment = {**os.environ, **self._subject.server}
            return "in this terminal" if not self._subject.server else "in this terminal and the sweep file"
        seen = ports.server_settings(urlsplit(self._url).port or 0)
        self._environment = os.environ if seen is None else seen
        return "in this terminal (the server's own cannot be seen)" if seen is None else "of the server"

    def _of_ollama(self) -> Iterator[Finding]:
        yield from self._wrong
        if self._program is not None:
            client = _client_version(self._program)
            private = "" if self._installed else ", the private build"
            yield ok("ollama", f"{self._program}, version {client or 'unknown'}{private}")
            if self._url:
                yield from self._of_server(client)
        elif not any(finding.check == "ollama" for finding in self._wrong):
            yield self._of_no_ollama()

    def _of_no_ollama(self) -> Finding:
        if self._subject.engine == "ollama":
            return bad("ollama", "ollama was not found", HOW_TO_GET)
        if self._subject.engine == "auto":
            text = "ollama was not found: the embedded llama.cpp (engine llamacpp) would measure instead"
            return warning("ollama", text, HOW_TO_GET)
        return ok("ollama", f"ollama was not found; engine {self._subject.engine} does not need it")

    def _of_server(self, client: str | None) -> Iterator[Finding]:
        if self._settings.managed:
            yield ok("server", "the sweep starts its own and stops it at the end (server: managed)")
        elif self._version is not None and self._installed is not None:
            yield ok("server", f"answers at {self._url}, version {self._version}")
            if client and client != self._version:
                text = f"the program is version {client}, the server {self._version}"
                yield warning("server", text, "Restart the server after an update, or name its program with --ollama")
            yield from self._of_loaded()
        elif self._settings.host is not None:
            if self._version is None:
                yield bad("server", f"no Ollama server answers at {self._url}", "Start it with: ollama serve")
            else:
                text = f"one answers at {self._url}, but no ollama program is in PATH to use it"
                yield bad("server", text, "Name the program with --ollama PATH")
        else:
            text = f"none answers at {self._url}"
            if self._version is not None:
                text = f"one answers at {self._url}, but no ollama program is in PATH to use it"
            yield ok("server", f"{text}; a sweep starts its own and stops it at the end")
        yield from of_version(self._version or client or "")

    def _of_loaded(self) -> Iterator[Finding]:
        """Models that other programs have loaded on the server, and what a dead sweep left there."""
        import httpx
        import ollama

        client = ollama.Client(host=self._url, timeout=ANSWER_S)
        try:
            loaded, installed = client.ps().models, client.list().models
        except (ConnectionError, httpx.HTTPError, ollama.ResponseError, ValueError) as error:
            yield bad("server", f"{self._url} does not say what is loaded: {error}", "Restart the server")
            return
        names = [str(entry.model) for entry in installed]
        if not self._subject.models:
            yield _of_installed([name for name in names if not name.startswith(SCRATCH)])
        yield from self._of_entries(loaded)
        for name in names:
            if name.startswith(SCRATCH) and not self._sweep_runs:
                text = f"{name} was left by a sweep that was killed, or belongs to one with another database"
                yield warning("left-over", text, f"The next run of that sweep removes it, or: ollama rm {name}")

    def _of_entries(self, loaded: Any) -> Iterator[Finding]:
        foreign = [entry for entry in loaded if not str(entry.model).startswith(SCRATCH)]
        self._is_shared = bool(loaded)
        for entry in foreign:
            held = f" ({format_bytes(entry.size)})" if entry.size else ""
            text = f"{entry.model}{held} is loaded on the server: it shares memory with each cell"
            yield warning("loaded", text, f"ollama stop {entry.model}")
        if not foreign:
            yield ok("loaded", "no other model is loaded on the server")

    # -- engine, model and prompt --------------------------------------------------------------------------------

    def _of_engine(self, machine: computer.Machine) -> Iterator[Finding]:
        """The engine that would measure, and through it the models."""
        name = self._subject.engine
        if name == "auto":
            name = "ollama" if self._program is not None else "llamacpp"
        if name != "llamacpp":
            yield _of_embedded()
        if any(finding.check in ("ollama", "server") for finding in self._wrong) and name == "ollama":
            return
        if name == "ollama" and self._program is None:
            return
        if name == "ollama" and not self._may_connect():
            if self._settings.host is None:
                yield ok("engine", "ollama would measure")
            return
        engine: Engine | None = None
        try:
            engine = engines.load(name, self._settings)
            yield from self._of_connected(name, engine, machine)
        except SweepError as error:
            yield of_error("engine", error)
        finally:
            if engine is not None:
                engine.close()

    def _may_connect(self) -> bool:
        """With nothing to look up, or beside a running sweep, no server is started."""
        if self._version is not None and self._installed is not None:
            return True
        starts_own = self._settings.host is None or self._settings.managed
        return starts_own and bool(self._subject.models) and not self._sweep_runs

    def _of_connected(self, name: str, engine: Engine, machine: computer.Machine) -> Iterator[Finding]:
        info = engine.describe()
        own = ", started for this check and stopped again" if info.details.get("server") == "own" else ""
        yield ok("engine", f"{name} {info.version} would measure ({info.where}{own})")
        models = self._subject.models
        if models == (ALL,):
            models = usable(engine, self._subject.kinds, self._settings.say)
        for model in models:
            try:
                found = engine.model_info(model)
            except SweepError as error:
                yield of_error("model", error)
                continue
            yield from checked_model.of_model(found, self._subject)
            yield from self._of_model(name, engine, found, machine)

    def _of_model(self, name: str, engine: Engine, info: ModelInfo, machine: computer.Machine) -> Iterator[Finding]:
        room = ranges.room(computer.visible(machine.gpus, self._environment), machine.available_bytes)
        factor, _ = ranges.cache_factor(self._environment)
        yield from checked_model.of_memory(info, self._subject, room, factor)
        try:
            length = self._length(name, engine, info)
        except (SweepError, CellFailed) as error:
            yield bad("prompt", f"its tokens cannot be counted, since {info.name} does not load: {error}")
            return
        if length is not None:
            yield from checked_model.of_prompt(info, self._subject, length)

    def _length(self, name: str, engine: Engine, info: ModelInfo) -> Length | None:
        """The prompt's length: remembered, given, counted now where that disturbs nobody, else estimated."""
        prompt = self._subject.prompt
        if prompt is None:
            known = self._subject.prompt_tokens
            return None if known is None else Length(known, "counted when it ran last")
        if prompt.tokens is not None:
            return Length(prompt.tokens, "made to that length")
        known = places.prompt_tokens(self._db, name, info.digest, self._subject.modelfile, prompts.prompt_hash(prompt))
        if known is not None:
            return Length(known, "counted by an earlier run")
        text = prompts.with_nonce(prompts.new_nonce(), prompt.text or "")
        if self._may_load(info):
            counted = engine.count_tokens(info.name, text)
            if counted is not None:
                return Length(counted, "counted now")
        return Length(len(text.encode()) // BYTES_PER_TOKEN, "estimated; `plan` counts them", is_estimate=True)

    def _may_load(self, info: ModelInfo) -> bool:
        is_large_file = info.name.endswith(".gguf") and (info.size_bytes or 0) > LARGEST_COUNTED_IMPORT_BYTES
        return not (self._sweep_runs or self._is_shared or is_large_file)

    def _importing_bytes(self) -> int:
        """Size of the .gguf files that Ollama would import."""
        sizes = []
        for model in self._subject.models:
            if model.endswith(".gguf") and self._subject.engine in ("auto", "ollama"):
                with contextlib.suppress(OSError):
                    sizes.append(Path(model).expanduser().stat().st_size)
        return sum(sizes)


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


def _of_embedded() -> Finding:
    """The embedded engine, where it is not the one that is needed."""
    try:
        engine = engines.load("llamacpp", EngineSettings())
    except (ConfigError, ImportError):
        return ok("llamacpp", "the embedded engine is not part of this installation")
    try:
        info = engine.describe()
    except SweepError as error:
        return ok("llamacpp", f"{error} (only needed without Ollama)")
    finally:
        engine.close()
    return ok("llamacpp", f"the embedded engine is there, too (xllamacpp {info.version})")


def of_version(version: str) -> Iterator[Finding]:
    """What is known of this version's rates."""
    number = ollama_server.version_tuple(version)
    if number and number != (0, 0, 0) and number < ollama_server.MINIMUM_VERSION:
        need = ".".join(str(part) for part in ollama_server.MINIMUM_VERSION)
        yield bad("ollama", f"Ollama {version} is too old (need {need} or newer)", "Update it from ollama.com")
    elif any(first <= number < before for first, before in INFLATING):
        text = f"Ollama {version} counts cached prompt tokens as work, so a repeated prompt looks far too fast"
        yield ok("rates", text, "Nothing to do: every run's prompt begins with a new number, so none is repeated")


def living_host(row: SweepRow, settings: EngineSettings) -> str | None:
    """The server that a sweep used last, where it still answers and can be used; its own one is gone with it."""
    where = str(row.spec.get("host", ""))
    if not where.startswith("http"):
        return None
    with contextlib.suppress(SweepError):
        url = ollama_server.base_url(where, allow_remote=settings.allow_remote)
        if ollama_server.installed_binary(settings.ollama) is None:
            return None
        return url if ollama_server.answering_version(url) is not None else None
    return None
