"""What `run` does for a person who is not there: it detaches, holds, keeps its log short, draws, and sends messages."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.progress import Progress, printable
from ollama_sweep.core.errors import DatabaseInUse, NotBelieved, Stopped
from ollama_sweep.core.events import CellFinished, CellStarted, Event, GoingOn, OnHold, Waiting
from ollama_sweep.core.outcome import Status
from ollama_sweep.machine import conditions
from ollama_sweep.run import detached, notify
from ollama_sweep.run.interim import InterimPictures
from ollama_sweep.run.summaries import ModelSummaries
from ollama_sweep.store import file, lock

if TYPE_CHECKING:
    from ollama_sweep.engines.base import EngineInfo
    from ollama_sweep.machine.computer import Gpu
    from ollama_sweep.plan.spec import SweepSpec
    from ollama_sweep.store.writer import Store

STALL_S = 300.0
"""So much longer than one step may take until it is called a stall."""


def db_words(db: Path) -> str:
    """` --db X`, or nothing for the usual database."""
    return "" if str(db) == shared.DEFAULT_DB else f" --db {db}"


# -- run --detach, in the terminal -----------------------------------------------------------------------------------


def detach(db: Path, *, allow_network: bool, as_json: bool) -> None:
    """Start this command again in the background and show what it says until it measures.

    Raises what can be seen from here (ConfigError, DatabaseInUse, StorageError); ends with the run's own exit code
    where it ends before its first cell.
    """
    file.check_place(db, allow_network, file.file_system)
    file.check_writable(db)
    if db.exists() and db.stat().st_size > 0:
        file.check_ours(db)
    holder = lock.holder(db)
    if holder is not None:
        raise DatabaseInUse(lock.already_running(holder))
    start = detached.Start(db, os.environ)

    def say(line: str) -> None:
        stream = sys.stderr if as_json or line.startswith("error: ") else sys.stdout
        click.echo(printable(line, stream), file=stream)

    try:
        left = start.wait(say)
    except KeyboardInterrupt:
        start.stop()
        start.ended(say)
        raise
    if not left:
        raise click.exceptions.Exit(start.ended(say))
    _say_how(start, db, as_json)


def _say_how(start: detached.Start, db: Path, as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps({"pid": start.child.pid, "log": str(start.log), "database": str(db.resolve())}))
        return
    end = db_words(db)
    click.echo(f"Running in the background: pid {start.child.pid}. It goes on when this terminal is closed.")
    click.echo(f"  look:   ollama-sweep status{end}, ollama-sweep watch{end}, ollama-sweep logs -f{end}")
    click.echo(f"  pause:  ollama-sweep pause{end}, then ollama-sweep continue{end}")
    click.echo(f"  stop:   ollama-sweep stop{end}")
    click.echo(f"Log: {start.log}")


# -- beside the loop -------------------------------------------------------------------------------------------------


class Company:
    """Everything that listens to a run: the terminal, its note for `status`, the log, pictures, messages."""

    def __init__(self, spec: SweepSpec, db: Path, progress: Progress, given: Mapping[str, Any]) -> None:
        self._spec, self._db, self._progress = spec, db, progress
        self._announcement = detached.Announcement.take_over()
        self._gpu = conditions.IdleGpu()
        self._listeners: list[Callable[[Event], None]] = [progress]
        self._send = notify.sender()
        self._notifier: notify.Notifier | None = None
        self._share = bool(given.get("share_server"))
        self._keep_awake = bool(given.get("keep_awake"))
        self._out: Path = given["out"]

    @property
    def is_detached(self) -> bool:
        """This run was started by `run --detach`."""
        return self._announcement.is_owed

    def __enter__(self) -> Company:
        if self._send is not None:
            patience_s = max(self._spec.timeout_s, self._spec.load_timeout_s) + STALL_S
            self._notifier = notify.Notifier(self._spec.name, self._send, self._progress.line, patience_s)
            self._listeners.append(self._notifier)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Messages that are under way get a moment, among them one that says why the run ends before its time."""
        if self._notifier is None:
            return
        is_failure = isinstance(error, Exception) and not isinstance(error, Stopped | NotBelieved)
        if is_failure and (self._notifier.measured or not sys.stdout.isatty()):
            self._notifier.failed(str(error))
        self._notifier.close()

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def attach(self, store: Store) -> None:
        """From now on `status` can say what the run waits for."""
        self._listeners.append(_Note(store))

    @contextlib.contextmanager
    def around(self, info: EngineInfo) -> Iterator[None]:
        """The server and the hardware are this sweep's alone, and the computer stays awake. Raises DatabaseInUse."""
        from ollama_sweep.machine import computer, keep_awake

        for line in _other_host(self._spec, info):
            self._progress.plain(line)
        claims = _claims(self._spec, info, computer.gpus)
        with contextlib.ExitStack() as stack:
            stack.enter_context(detached.claimed(claims, self._db, self._progress.line, share=self._share))
            if self._keep_awake:
                stack.enter_context(keep_awake.kept_awake(self._progress.line))
            yield

    def begin(self, store: Store, sweep_id: int) -> None:
        """The sweep is registered and about to start: let everybody come who listens to its cells."""
        counts = store.counts(sweep_id)
        words = [
            *detached.program_words(),
            "heatmap",
            self._spec.name,
            "--db",
            str(self._db),
            "--out",
            str(self._out),
        ]
        self._listeners.append(_log_keeper(self._db))
        self._listeners.append(InterimPictures(self._spec.interim, words, self._progress.line))
        self._listeners.append(ModelSummaries(self._db, self._spec.name, self._progress.plain))
        if self._notifier is not None and counts.get(Status.OOM):
            self._notifier.already_had(Status.OOM)
        self._announcement.make(counts.get(Status.PENDING, 0))

    def may_start(self) -> conditions.Wait | None:
        """Why no cell may start now; None where one may."""
        paused = detached.paused_since(self._db)
        if paused is not None:
            since = conditions.clock(paused, datetime.now())
            return conditions.Wait(
                f"paused since {since}; go on with: ollama-sweep continue{db_words(self._db)}", None, detached.POLL_S
            )
        could_tell = self._gpu.can_tell
        wait = conditions.when_may_i_run(
            datetime.now(), self._spec.conditions, conditions.on_battery, self._gpu.is_busy
        )
        if could_tell and not self._gpu.can_tell:
            self._progress.line("Warning: no GPU here says how busy it is, so wait_for_idle_gpu waits for nothing")
        return wait

    def done(self, text: str) -> None:
        """Every cell has a final state."""
        if self._notifier is not None:
            self._notifier.done(text)


class _Note:
    """Writes beside the lock what the run waits for, for `status` in another terminal."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_waiting = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, OnHold | Waiting):
            self._store.note(f"on hold: {event.reason}" if isinstance(event, OnHold) else f"waiting: {event.reason}")
            self._is_waiting = True
        elif self._is_waiting and isinstance(event, CellStarted | GoingOn):
            self._store.note("")
            self._is_waiting = False


def _log_keeper(db: Path) -> Callable[[Event], None]:
    """Keeps the log short where this run's output goes to it."""
    log = detached.log_path(db)
    try:
        is_ours = os.path.samestat(os.fstat(1), log.stat())
    except OSError:
        is_ours = False

    def listen(event: Event) -> None:
        if is_ours and isinstance(event, CellFinished):
            detached.keep_short(log)

    return listen


def _other_host(spec: SweepSpec, info: EngineInfo) -> Iterator[str]:
    """A note where the server is asked at another address than the one that is written."""
    from ollama_sweep import engines
    from ollama_sweep.machine.address import means_everywhere

    variable = engines.facts(info.name).host_variable
    what, given = ("host", spec.host) if spec.host or not variable else (variable, os.environ.get(variable))
    if given and "://" in info.where and info.details.get("server") != "own" and means_everywhere(given):
        yield (
            f"Note: {what} ({given}) is where a server listens, not where one is asked; "
            f"this computer's own at {info.where} is used"
        )


def _claims(spec: SweepSpec, info: EngineInfo, gpus: Callable[[], tuple[Gpu, ...]]) -> dict[str, str]:
    """What a sweep needs for itself, as key -> words: its server, and this computer's GPUs or else its processor."""
    import platform
    from urllib.parse import urlsplit

    from ollama_sweep import engines
    from ollama_sweep.machine import computer, ports
    from ollama_sweep.machine.address import is_loopback

    is_scripted = engines.facts(info.name).is_scripted
    address = info.where if "://" in info.where else spec.host if is_scripted and spec.host else ""
    is_found = address and info.details.get("server") != "own"
    claims = {f"server {address}": f"The server at {address}"} if is_found else {}
    url = urlsplit(address)
    if is_scripted or (address and not is_loopback(url.hostname or "")):
        return claims
    settings = {**os.environ, **(ports.server_settings(url.port) or {} if url.port else {})}
    all_gpus = gpus()
    for gpu in computer.visible(all_gpus, settings):
        number = next(index for index, other in enumerate(all_gpus) if other is gpu)
        claims[f"{platform.node()} gpu {number}"] = f"GPU {number} ({gpu.name})"
    if len(claims) == bool(is_found):
        claims[f"{platform.node()} processor"] = "This computer's processor"
    return claims
