"""Stopping by a method: what may be cut short is, and a commit never."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ollama_sweep.machine.telemetry import Telemetry
from ollama_sweep.run.stopping import StopNow, Stopping

GIVE_UP_S = 60.0


class Beside:
    """Runs `work` in a thread where it can be stopped; `outcome` is what it ended with."""

    def __init__(self, work: Callable[[Stopping], object]) -> None:
        self.stopping = Stopping()
        self.outcome: object = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self.stopping.installed():
            try:
                self.outcome = self._work(self.stopping)
            except StopNow:
                self.outcome = StopNow

    def ended(self) -> object:
        self._thread.join(GIVE_UP_S)
        assert not self._thread.is_alive()
        return self.outcome


def test_it_is_not_taken_for_a_failure_of_what_it_cuts_short() -> None:
    """Telemetry lets nothing of its own disturb a cell, and a signal may come up while it looks."""

    def cut_short() -> tuple[int, ...]:
        raise StopNow

    with pytest.raises(StopNow):
        Telemetry(cut_short, sensors=()).start()


def test_a_commit_is_whole_whenever_the_stop_comes() -> None:
    for _ in range(50):
        begun, ended = [0], [0]
        going = threading.Event()

        def work(stopping: Stopping, begun: list[int] = begun, ended: list[int] = ended) -> None:
            with stopping.interruptible():
                while True:
                    with stopping.shielded():
                        begun[0] += 1
                        going.set()  # noqa: B023 - the thread ends before the next turn
                        ended[0] += 1

        beside = Beside(work)
        assert going.wait(GIVE_UP_S)
        beside.stopping.stop(now=True)
        assert beside.ended() is StopNow
        assert begun == ended


def test_what_comes_after_the_block_is_not_cut_short() -> None:
    is_out, asked = threading.Event(), threading.Event()

    def work(stopping: Stopping) -> str:
        with stopping.interruptible():
            pass
        is_out.set()
        assert asked.wait(GIVE_UP_S)
        total = sum(number for number in range(100_000))
        return f"went on to {total}"

    beside = Beside(work)
    assert is_out.wait(GIVE_UP_S)
    beside.stopping.stop(now=True)
    asked.set()
    assert beside.ended() == "went on to 4999950000"


def test_a_stop_in_a_commit_is_found_right_after_it() -> None:
    inside, asked = threading.Event(), threading.Event()
    done: list[str] = []

    def work(stopping: Stopping) -> None:
        with stopping.interruptible():
            with stopping.shielded():
                inside.set()
                assert asked.wait(GIVE_UP_S)
                done.append("commit")
            done.append("more")

    beside = Beside(work)
    assert inside.wait(GIVE_UP_S)
    beside.stopping.stop(now=True)
    asked.set()
    assert beside.ended() is StopNow
    assert done == ["commit"]


def test_cleaning_up_after_a_stop_is_not_cut_short_by_the_next() -> None:
    inside, asked_again = threading.Event(), threading.Event()
    done: list[str] = []

    def work(stopping: Stopping) -> None:
        with stopping.interruptible():
            try:
                inside.set()
                while True:
                    threading.Event().wait(0.01)
            finally:
                assert asked_again.wait(GIVE_UP_S)
                done.append("cleaned up")

    beside = Beside(work)
    assert inside.wait(GIVE_UP_S)
    beside.stopping.stop(now=True)
    beside.stopping.stop(now=True)
    asked_again.set()
    assert beside.ended() is StopNow
    assert done == ["cleaned up"]


def test_the_first_is_said_once() -> None:
    said: list[str] = []
    stopping = Stopping(said.append)
    for now in (False, False, True):
        stopping.stop(now=now)
    assert said == ["Stopping after this cell … (again to stop now; the cell is then measured again)"]
    assert stopping.now
    assert stopping.signal_number == 15
    with pytest.raises(StopNow), stopping.interruptible():
        pass
