"""The bridge to a lane elsewhere: `python -m ollama_sweep.run.cluster.bridge FOLDER`.

To the coordinator it is an attempt process: it takes the same orders, says the same lines, and lays what was measured
into the same outbox. It measures nothing: it has its lane's host do so, and waits where the way there is cut. What is
finished on the host stays there until it is in the database.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import ConfigError, EngineUnavailable, Stopped, SweepError
from ollama_sweep.core.lanes import order as lines
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.lanes.order import Away, Gone, HandedIn, Line, Note, Order
from ollama_sweep.machine.clocks import REAL
from ollama_sweep.run.cluster import hosted
from ollama_sweep.run.cluster.link import Link, Lost
from ollama_sweep.run.cluster.ways import Way
from ollama_sweep.run.lanes import post as posts
from ollama_sweep.run.lanes.attempt_process import END, RELEASE, Teller
from ollama_sweep.run.lanes.post import Post
from ollama_sweep.run.lanes.room import Room
from ollama_sweep.run.stopping import StopNow, Stopping

WAY = "way.json"
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0


class Died(Exception):
    """The attempt process on the host is gone with what it measured; so is this one, which stands for it."""


class Bridge:
    """One lane elsewhere."""

    def __init__(
        self, post: Post, room: Room, way: Way, tell: Teller, stopping: Stopping, heard: Callable[[], str]
    ) -> None:
        self._post, self._room, self._tell, self._stopping, self._heard = post, room, tell, stopping, heard
        self._key = f"{post.database[:12]}-{post.lane.name}"
        self._link = Link(way, self._pass_on)
        self._told: set[str] = set()
        """What was handed on and may lie on the host yet."""
        self._is_cut = False

    def run(self) -> None:
        """Until the coordinator ends it, or is gone. Raises SweepError, Stopped, Died."""
        try:
            self._tell(self._attached())
            while (order := self._next_order()) is not None:
                self._measure(order)
                if not self._stopping.requested:
                    self._tell(self._readied())
            self._detach()
        finally:
            self._link.close()

    def _pass_on(self, line: str) -> None:
        """What the host tells meanwhile."""
        with contextlib.suppress(ConfigError):
            self._tell(lines.said_in(line, "a host"))

    # -- orders ----------------------------------------------------------------------------------------------------

    def _next_order(self) -> Order | None:
        while not self._stopping.requested:
            try:
                with self._stopping.interruptible():
                    line = self._heard().strip()
            except StopNow:
                return None
            if line in ("", END):
                return None
            if line == RELEASE:
                self._link.aside(hosted.release, self._key)
                continue
            return lines.order_of(line, "an order")
        return None

    def _measure(self, order: Order) -> None:
        """Until its result lies in the outbox here. Raises Died where it is lost."""
        said: Line | None = None
        while said is None:
            try:
                said = self._asked_once(f"attempt-{order.attempt_id}", hosted.measure, plain.as_text(order))
                if said is None:  # its worker was started again, and nothing was begun
                    self._attached()
            except Lost as lost:
                said = self._attached(lost)
        if order.attempt_id not in {_attempt(name) for name in self._told}:
            raise Died(said.why if isinstance(said, Gone) else f"the host of {order.lane} has lost what it measured")

    # -- the host --------------------------------------------------------------------------------------------------

    def _attached(self, lost: EngineUnavailable | None = None) -> Line:
        """What the host says once its attempt process is at rest. The way there is sought until it is given up.

        Raises EngineUnavailable, ConfigError, Stopped.
        """
        wait_s, until = FIRST_WAIT_S, REAL.monotonic_s() + self._post.wait_engine_s
        while True:
            if lost is not None:
                if REAL.monotonic_s() > until or not self._tell.is_heard:
                    raise lost
                self._tell(Away(str(lost), wait_s))
                self._rest(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            try:
                self._link.renew()
                return self._answered("attach", hosted.attach, plain.as_text(self._post))
            except Lost as again:
                lost = again

    def _rest(self, seconds: float) -> None:
        until = REAL.monotonic_s() + seconds
        while (left_s := until - REAL.monotonic_s()) > 0:
            if self._stopping.now:
                raise Stopped("stopped", self._stopping.signal_number or 2)
            REAL.sleep(min(0.2, left_s))

    def _readied(self) -> Line:
        """After an order: what it says once it takes the next one."""
        try:
            return self._answered("ready", hosted.ready)
        except Lost as lost:
            return self._attached(lost)

    def _answered(self, what: str, function: Callable[..., Any], *words: object) -> Line:
        """Of an attempt process that ought to be ready. Raises Lost, EngineUnavailable where it has ended."""
        said = self._asked_once(what, function, *words)
        if said is None or isinstance(said, Gone):
            raise EngineUnavailable((isinstance(said, Gone) and said.why) or "its process on the host has ended")
        return said

    def _asked_once(self, what: str, function: Callable[..., Any], *words: object) -> Line | None:
        """What the host answers, None for nothing; its results are kept here first. Raises Lost."""
        answer = self._link.ask(what, function, self._key, *words, self._taken(), self._link.topic, look=self._look)
        for name, text in answer["results"]:
            self._keep(name, text)
        return lines.said_in(answer["line"], "a host") if answer["line"] else None

    def _look(self) -> None:
        """While something is measured: a stop goes to the host, whose result says that it was cut short."""
        if self._stopping.now and not self._is_cut:
            self._is_cut = True
            self._link.aside(hosted.cut, self._key)

    # -- results ---------------------------------------------------------------------------------------------------

    def _keep(self, name: str, text: str) -> None:
        """Lay it into the outbox here, once. Raises StorageError."""
        if name in self._told:
            return
        try:
            handed = lines.handed_of(text, f"{name} of the host")
        except ConfigError as error:
            self._tell(Note(f"Warning: {error}; it stays there"))
            self._told.add(name)
            return
        kept = self._room.outbox.put(handed)
        self._told.add(name)
        self._tell(HandedIn(kept, handed.order.attempt_id))

    def _taken(self) -> list[str]:
        """What is in the database: the coordinator has taken it out of the outbox here."""
        waiting = set(self._room.outbox.names())
        return sorted(name for name in self._told if name not in waiting)

    def _detach(self) -> None:
        """The process on the host ends, also where nobody can tell it: then by itself, when its worker goes."""
        with contextlib.suppress(Lost):
            self._link.ask("detach", hosted.detach, self._key, self._taken(), look=lambda: None)


def _attempt(name: str) -> int:
    return int(name.partition("-")[0])


def _serve(room: Room, tell: Teller, stopping: Stopping) -> Gone:
    """Stand for the lane of this folder; why it ended. Raises Died."""
    try:
        held = room.hold()
        try:
            post, way = posts.read(room), Way.read(room.folder / WAY)
            with stopping.installed():
                Bridge(post, room, way, tell, stopping, sys.stdin.readline).run()
        finally:
            os.close(held)
    except Stopped:
        return Gone("stopped")
    except (SweepError, OSError) as error:
        return Gone(str(error))
    return Gone()


def main() -> None:
    """See the module."""
    stopping = Stopping()
    tell = Teller(sys.stdout, stopping)
    try:
        tell(_serve(Room(Path(sys.argv[1])), tell, stopping))
    except Died as death:
        tell(Note(f"Warning: {death}"))
        sys.exit(1)


if __name__ == "__main__":
    main()
