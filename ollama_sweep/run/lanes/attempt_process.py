"""The attempt process of a lane: `python -m ollama_sweep.run.lanes.attempt_process FOLDER`.

It measures what the orders on its standard input say, one after the other, on an engine of its own that it keeps, and
lays each finished attempt into its outbox. It knows no database. Its input ends where the coordinator does: then it
finishes what it has in hand and ends. SIGUSR2 cuts short what it measures.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ollama_sweep import engines, tasks
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import EngineStuck, EngineUnavailable, Stopped, StorageError, SweepError
from ollama_sweep.core.events import Event, Notice, OnHold, RunFinished, Waiting
from ollama_sweep.core.lanes import order as lines
from ollama_sweep.core.lanes.lane import Standing
from ollama_sweep.core.lanes.order import Handed, Line, Order
from ollama_sweep.core.outcome import Flag, Outcome, Status
from ollama_sweep.engines.base import Engine
from ollama_sweep.engines.shared import leftovers
from ollama_sweep.machine import computer
from ollama_sweep.machine.clocks import REAL
from ollama_sweep.machine.computer import Machine, OtherMachine
from ollama_sweep.machine.neighbours import core_time
from ollama_sweep.machine.processor import keep_to
from ollama_sweep.machine.telemetry import Telemetry
from ollama_sweep.plan import opening
from ollama_sweep.run import cooling
from ollama_sweep.run.attempt import UNSEEN, Measuring, unbroken
from ollama_sweep.run.lanes import post as posts
from ollama_sweep.run.lanes.post import Post
from ollama_sweep.run.lanes.room import FileLedger, Room, at_work
from ollama_sweep.run.loop import ShieldedLedger, surroundings
from ollama_sweep.run.stopping import StopNow, Stopping
from ollama_sweep.run.turns import Beside
from ollama_sweep.run.waiting import pause, wait_for

ROOM_WAIT_S = 5.0
RELEASE, END = "release", "end"
"""What is heard beside orders: let go of what is loaded; end."""


class Teller:
    """Says lines to the coordinator, as long as there is one."""

    def __init__(self, stream: TextIO, stopping: Stopping) -> None:
        self._stream, self._stopping = stream, stopping
        self.is_heard = True

    def __call__(self, said: Line) -> None:
        """Whoever is not heard any more finishes what it has in hand."""
        try:
            self._stream.write(lines.line_of(said) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            if self.is_heard:
                self.is_heard = False
                self._stopping.stop()

    def event(self, event: Event) -> None:
        """What happens while it measures or waits."""
        match event:
            case RunFinished():
                self(lines.RunMade(event.number, event.warmup, event.rate))
            case Notice():
                self(lines.Note(event.text))
            case Waiting():
                self(lines.Away(event.reason, event.seconds))
            case OnHold():
                self(lines.Resting(event.reason))
            case _:
                pass


class AttemptProcess:
    """One lane at work: its engine, its ledger, its outbox."""

    def __init__(self, post: Post, room: Room, tell: Teller, stopping: Stopping, heard: Callable[[], str]) -> None:
        """`heard` waits for a line and gives it; "" at the end."""
        self._post, self._room, self._tell, self._stopping, self._heard = post, room, tell, stopping, heard
        self._spec = post.spec()
        self._ledger: FileLedger = room.ledger
        self._spread = 0.0
        self._was_read: set[str] = set()
        self._was_away = False
        self._standing: Standing | None = None
        shielded = ShieldedLedger(self._ledger, stopping)
        settings = post.told.settings(shielded, lambda line: tell(lines.Note(line)), _to_log)
        self._engine: Engine = opening.open_engine(post.engine, settings)

    def run(self) -> None:
        """Measure until the coordinator ends it, or is gone. Raises EngineUnavailable, Stopped, SweepError."""
        try:
            self._clear_leftovers()
            self._set_up()
            while (order := self._next_order()) is not None:
                began_s = REAL.monotonic_s()
                outcome = self._outcome(order)
                self._hand_in(order, outcome, REAL.monotonic_s() - began_s)
                if outcome.status is not Status.OK:
                    self._bring_to_rest()
                reached("after_release")
        finally:
            self._engine.close()

    def _clear_leftovers(self) -> None:
        """What a process that died on this lane has left, before anything new is made."""
        found = self._ledger.leftovers()
        for line in leftovers.cleared(self._engine, found, self._ledger.settle, "an earlier process"):
            self._tell(lines.Note(line.replace("session", "process")))

    def _set_up(self) -> None:
        """What is known of the lane once its engine answers."""
        info = self._wait_for(self._engine.describe)
        is_elsewhere, here = opening.is_elsewhere(info), self._own(opening.machine_of(info))
        self._sees_memory = not is_elsewhere
        self._measuring = Measuring(
            spec=self._spec,
            sent=self._post.sent(),
            tasks={one.task: tasks.load(one.task) for one in self._post.asked},
            engine=self._engine,
            emit=self._tell.event,
            has_gpu=bool(here.gpus),
            runs_spread=lambda: self._spread,
            **(UNSEEN if is_elsewhere else {"watch": self._watch(info.name)}),
            loading=self._loading,
        )
        celsius = cooling.celsius_of(self._spec, info)
        self._cooling = cooling.CoolDown(self._spec.cooldown, celsius, self._stopping, self._tell.event)
        self._machine = here.fingerprint()
        self._stand()

    def _own(self, machine: Machine | OtherMachine) -> Machine | OtherMachine:
        """The computer with the one GPU of this lane."""
        gpu = self._post.lane.gpu
        return machine if gpu is None else replace(machine, gpus=machine.gpus[gpu : gpu + 1])

    def _watch(self, engine: str) -> Callable[[Callable[[], tuple[int, ...]]], Telemetry]:
        """What a cell is watched with. Lanes with processors of their own take nothing away from each other."""
        if engines.facts(engine).is_scripted:
            return partial(Telemetry, cores=None)
        if not self._post.lane.processors:
            return Telemetry
        beside = self._room.folder.parent
        return partial(Telemetry, cores=lambda pids: core_time([*pids, *at_work(beside)]))

    @contextlib.contextmanager
    def _loading(self, cell: Cell) -> Iterator[None]:
        """Two lanes of a computer do not read the disk at once: the first load of a model waits for that of others."""
        if self._post.lane.host or cell.model in self._was_read:
            yield
            return
        with self._room.reading():
            yield
        self._was_read.add(cell.model)

    def _stand(self) -> Standing:
        """What is true of the lane now: a server may be another one than before."""
        info = self._wait_for(self._engine.describe)
        digests = self._standing.digests if self._standing is not None else {}
        if self._standing is None or self._was_away or self._standing.version != info.version:
            digests = self._wait_for(
                lambda: {model: self._engine.model_info(model).digest for model in self._post.models}
            )
            self._was_away = False
        fingerprint = surroundings(info, self._machine)
        if self._post.lane.processors:
            fingerprint["processors"] = str(len(self._post.lane.processors))
        where = "" if info.details.get("server") == "own" else info.where
        self._standing = Standing(info.name, info.version, where, digests, fingerprint, self._measuring.has_gpu)
        return self._standing

    def _wait_for(self, ask: Callable[[], Any]) -> Any:
        return wait_for(ask, self._stopping, self._tell.event, self._post.wait_engine_s)

    # -- orders ----------------------------------------------------------------------------------------------------

    def _next_order(self) -> Order | None:
        """Say that the lane is ready, and wait for what it is told; None where it is to end."""
        if self._stopping.requested:
            return None
        while full := self._room.outbox.fullness():
            self._tell(lines.Away(full, ROOM_WAIT_S))
            pause(ROOM_WAIT_S, self._stopping)
        self._tell(lines.Ready(self._stand()))
        while not self._stopping.requested:
            line = self._line()
            if line.strip() in ("", END):
                return None
            if line.strip() != RELEASE:
                return lines.order_of(line, "an order")
            with contextlib.suppress(EngineUnavailable), self._stopping.interruptible():
                self._engine.release(failed=False)
        return None

    def _line(self) -> str:
        try:
            with self._stopping.interruptible():
                return self._heard()
        except StopNow:
            return END

    # -- one attempt ---------------------------------------------------------------------------------------------

    def _outcome(self, order: Order) -> Outcome:
        """What came of it; an engine that is away, or a stop, leaves it interrupted."""
        self._spread = order.runs_spread
        try:
            self._cooling.before_cell()
            outcome = unbroken(partial(self._measured, order), REAL, self._stopping.stops)
        except (StopNow, Stopped):
            return Outcome(Status.INTERRUPTED, "stopped")
        except EngineUnavailable as error:
            reason = "stuck" if isinstance(error, EngineStuck) else "engine_unavailable"
            return Outcome(Status.INTERRUPTED, reason, str(error))
        finally:
            self._cooling.after_cell()
        if outcome.status is Status.OK and self._cooling.is_warm:
            return replace(outcome, flags=outcome.flags | {Flag.WARM})
        return outcome

    def _measured(self, order: Order) -> Outcome:
        with self._stopping.interruptible():
            if order.fresh:
                self._engine.release(failed=False)
            return self._measuring.outcome(order.cell, Beside(order.loads, order.adds), order.runs)

    def _hand_in(self, order: Order, outcome: Outcome, took_s: float) -> None:
        """Into the outbox, and tell where. A full disk is waited for, because nothing else has this result.

        Raises StorageError where the disk refuses for good, Stopped where it is full and nobody wants to wait.
        """
        gpu_free, memory_free = self._free() if self._is_out_of_memory(outcome) else (None, None)
        version = self._standing.version if self._standing is not None else ""
        handed = Handed(order, outcome, version, took_s, os.getpid(), gpu_free, memory_free)
        reached("before_hand_in")
        while True:
            try:
                name = self._room.outbox.put(handed)
                break
            except ValueError as error:  # NaN or infinity, which nobody stores
                bug = Outcome(Status.ERROR, "bug", str(error))
                handed = Handed(order, bug, version, took_s, os.getpid())
            except StorageError as error:
                if not error.no_space or self._stopping.now:
                    raise
                self._tell(lines.Away(str(error), ROOM_WAIT_S))
                REAL.sleep(ROOM_WAIT_S)
        reached("handed_in")
        self._tell(lines.HandedIn(name, order.attempt_id))

    def _is_out_of_memory(self, outcome: Outcome) -> bool:
        return self._sees_memory and outcome.status is Status.OOM

    def _free(self) -> tuple[int | None, int | None]:
        """Bytes that are free now, of the GPU of this lane and of the computer."""
        gpu, (of_all, memory) = self._post.lane.gpu, computer.free_memory()
        if gpu is None:
            return of_all, memory
        own = computer.gpus()[gpu : gpu + 1]
        return (own[0].free_bytes if own else None), memory

    def _bring_to_rest(self) -> None:
        """After a failure nothing of it may touch the next cell; an engine that is away is waited for."""
        try:
            with self._stopping.interruptible():
                self._engine.release(failed=True)
        except StopNow:
            return
        except EngineUnavailable as error:
            self._was_away = True
            wait_for(self._engine.describe, self._stopping, self._tell.event, self._post.wait_engine_s, error)


def _to_log(line: str) -> None:
    """What is traced goes where nobody must listen."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{json.dumps(line)}\n")


def _serve(room: Room, tell: Teller, stopping: Stopping) -> lines.Gone:
    """Work as the lane of this folder; why it ended."""
    try:
        held = room.hold()
        try:
            post = posts.read(room)
            keep_to(post.lane.processors)
            with stopping.installed():
                AttemptProcess(post, room, tell, stopping, sys.stdin.readline).run()
        finally:
            os.close(held)
    except Stopped:
        return lines.Gone("stopped")
    except (SweepError, OSError) as error:
        return lines.Gone(str(error))
    return lines.Gone()


def main() -> None:
    """See the module."""
    stopping = Stopping()
    tell = Teller(sys.stdout, stopping)
    tell(_serve(Room(Path(sys.argv[1])), tell, stopping))


if __name__ == "__main__":
    main()
