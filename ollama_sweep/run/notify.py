"""Messages to a person's own addresses: done, first out of memory, stalled, drift. Never an error of the sweep.

The addresses are apprise URLs (`ntfy://…`, `mailto://…`) in the environment, because they hold passwords; no text
shows more of them than the part before `://`. They are sent by a thread, so that a slow service holds up nothing.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from ollama_sweep.core.errors import ConfigError, NotBelieved, Stopped
from ollama_sweep.core.events import (
    CellFinished,
    CellStarted,
    Drifted,
    Event,
    FurtherFinished,
    FurtherStarted,
    GoingOn,
    OnHold,
    RunFinished,
    SweepStarted,
    Waiting,
)
from ollama_sweep.core.outcome import Status, failure_label
from ollama_sweep.core.text import harmless_lines, whole_line
from ollama_sweep.core.units import format_duration
from ollama_sweep.machine.secrets import NOTIFY
from ollama_sweep.plan.spec import SweepSpec

VARIABLE = NOTIFY
STALL_S = 300.0
"""So much longer than one step may take until it is called a stall."""
GOODBYE_S = 15.0
"""How long the end of a run waits for messages that are still under way."""

_PROGRESS = (SweepStarted, CellStarted, RunFinished, CellFinished, FurtherStarted, FurtherFinished, Drifted, GoingOn)
Send = Callable[[str, str], bool]
"""Takes a title and a text; false where they could not be delivered."""


def sender(environment: Mapping[str, str] = os.environ) -> Send | None:
    """What sends to the addresses in the environment; None where there are none. Raises ConfigError."""
    urls = environment.get(VARIABLE, "").split()
    if not urls:
        return None
    try:
        import apprise
    except ImportError:
        raise ConfigError("is set, but apprise is not installed. Run: pip install apprise", VARIABLE) from None
    import logging

    logging.getLogger("apprise").addHandler(logging.NullHandler())
    logging.getLogger("apprise").propagate = False
    service = apprise.Apprise()
    for number, url in enumerate(urls, 1):
        if not service.add(url):
            scheme, found, _ = url.partition("://")
            what = f"({scheme[:30]}://…) is unknown or not complete" if found else "is not like ntfy://… or mailto://…"
            raise ConfigError(
                f"address {number} {what}. Addresses stand side by side with spaces between; "
                "their forms are listed at https://appriseit.com",
                VARIABLE,
            )

    def send(title: str, text: str) -> bool:
        return bool(service.notify(title=whole_line(title), body=harmless_lines(text)))

    return send


class Notifier:
    """Listens to the events of one sweep. `patience_s` without progress is a stall; a hold is none.

    As a block it tells the error that ends the run, where the run `is_alone` or has measured something, and closes.
    """

    def __init__(
        self, name: str, send: Send, say: Callable[[str], None], patience_s: float, *, is_alone: bool = True
    ) -> None:
        self._name, self._send, self._say, self._patience_s = name, send, say, patience_s
        self._is_alone = is_alone
        self._messages: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self._told: set[str] = set()
        self._progress_at: float | None = None
        self._at = ""
        self.measured = 0
        self._thread = threading.Thread(target=self._work, name="notifications", daemon=True)
        self._thread.start()

    def __enter__(self) -> Notifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_failure = isinstance(error, Exception) and not isinstance(error, Stopped | NotBelieved)
        if is_failure and (self.measured or self._is_alone):
            self.failed(str(error))
        self.close()

    def __call__(self, event: Event) -> None:
        match event:
            case SweepStarted() if event.counts.get(Status.OOM):
                self._told.add(str(Status.OOM))  # an earlier run has met it: no news
            case CellStarted() | FurtherStarted():
                self._at = f"at {event.cell.label()}"
            case CellFinished():
                self._finished(event)
            case FurtherFinished():
                self.measured += 1
                self._told.discard("stalled")
            case Drifted():
                if event.has_drifted:
                    self._tell_once("drift", "the machine's speed has drifted", f"{event.drift:+.1%} {self._at}.")
            case Waiting():
                self._at = f"waiting: {event.reason}"
            case _:
                pass
        if isinstance(event, _PROGRESS):
            self._progress_at = time.monotonic()
        elif isinstance(event, OnHold):
            self._progress_at = None

    def _finished(self, event: CellFinished) -> None:
        outcome, label = event.outcome, event.cell.label()
        self.measured += 1
        self._told.discard("stalled")
        if outcome.status is Status.OOM:
            words = failure_label(outcome.status, outcome.reason)
            self._tell_once(str(Status.OOM), "out of memory", f"First cell without room: {label} ({words}).")

    def done(self, text: str) -> None:
        """No cell is pending any more; told only where this run has measured something."""
        if self.measured:
            self._tell_once("done", "done", text)

    def failed(self, error: str) -> None:
        """The run ends by itself before its time."""
        self._tell_once("stalled", "stopped by an error", error)

    def close(self) -> None:
        """Wait a while for what is under way."""
        self._progress_at = None
        self._messages.put(None)
        self._thread.join(GOODBYE_S)

    def _tell_once(self, key: str, title: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._messages.put((title, text))

    def _work(self) -> None:
        again_s = min(5.0, self._patience_s / 2)
        while True:
            try:
                message = self._messages.get(timeout=again_s)
            except queue.Empty:
                self._look_for_stall()
                continue
            if message is None:
                return
            self._deliver(*message)

    def _look_for_stall(self) -> None:
        since = self._progress_at
        if since is not None and time.monotonic() - since > self._patience_s:
            self._tell_once("stalled", "no progress", f"For {format_duration(self._patience_s)} {self._at}.")

    def _deliver(self, title: str, text: str) -> None:
        try:
            delivered = self._send(f"ollama-sweep {self._name}: {title}", text)
        except Exception:
            delivered = False
        if not delivered and "failure" not in self._told:
            self._told.add("failure")
            self._say(f"Warning: a notification ({title}) could not be sent; the sweep goes on")


def notifier(spec: SweepSpec, send: Send, say: Callable[[str], None], *, is_alone: bool) -> Notifier:
    """What tells a person of this sweep; `is_alone`: nobody sits in front of it."""
    patience_s = max(spec.timeout_s, spec.load_timeout_s) + STALL_S
    return Notifier(spec.name, send, say, patience_s, is_alone=is_alone)
