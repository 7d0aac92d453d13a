"""Messages to the person: a real address (apprise's json://) that a small server here listens on."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from ollama_fixture import until
from sweeping import Program, label, program

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.events import CellFinished, CellStarted, OnHold, SweepStarted, Waiting
from ollama_sweep.core.outcome import Outcome, Status
from ollama_sweep.run import notify
from ollama_sweep.run.notify import VARIABLE, Notifier, sender

CELL = Cell((("num_ctx", 512), ("num_batch", 2)), "m", (("num_batch", 2), ("num_ctx", 512), ("num_predict", 2)))


class Inbox:
    """What has arrived at `address`, as (title, text)."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                inbox.messages.append((body["title"], body["message"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://secret:word@127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.messages]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    yield made
    made.close()


# -- as a person sees it ---------------------------------------------------------------------------------------------


def test_a_sweep_tells_its_end_and_its_first_cell_without_room(program: Program, inbox: Inbox) -> None:
    program.script(cells={label(512, 4): ["cuda_oom"], label(1024, 4): ["cuda_oom"]})
    program.start("run", program.grid(), env={**program.environment(), VARIABLE: inbox.address}).wait().must()
    assert inbox.titles == ["ollama-sweep grid: out of memory", "ollama-sweep grid: done"]
    assert label(512, 4) in inbox.messages[0][1]
    assert "Best: num_ctx" in inbox.messages[1][1]


def test_a_sweep_that_was_done_already_tells_nothing(program: Program, inbox: Inbox) -> None:
    program("run", program.grid()).must()
    program.start("run", program.grid(), env={**program.environment(), VARIABLE: inbox.address}).wait().must()
    assert inbox.messages == []


def test_going_on_does_not_tell_a_second_time_that_memory_ran_out(program: Program, inbox: Inbox) -> None:
    program.script(cells={label(512, 2): ["cuda_oom"], label(1024, 4): ["cuda_oom"]})
    program("run", program.grid(num_ctx=[512])).must()
    program.start("run", program.grid(), env={**program.environment(), VARIABLE: inbox.address}).wait().must()
    assert inbox.titles == ["ollama-sweep grid: done"]


def test_a_run_that_ends_by_an_error_tells_why(program: Program, inbox: Inbox) -> None:
    program.script(cells={label(512, 2): ["ok"], label(512, 4): ["unavailable"]})
    environment = {**program.environment(), VARIABLE: inbox.address}
    program.start("run", program.grid(), "--wait-engine", "0.2s", env=environment).wait().must(5)
    assert inbox.titles == ["ollama-sweep grid: stopped by an error"]
    assert "could not connect" in inbox.messages[0][1]


def test_an_address_that_does_not_answer_is_one_warning(program: Program) -> None:
    program.script(cells={label(512, 2): ["cuda_oom"]})
    environment = {**program.environment(), VARIABLE: "json://secret:word@127.0.0.1:1"}
    ended = program.start("run", program.grid(), env=environment).wait().must()
    said = ended.stdout + ended.stderr
    assert said.count("could not be sent") == 1
    assert "4/4" in said
    assert "secret" not in said
    assert "127.0.0.1:1" not in said


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        ("slak://token", "address 1 (slak://…) is unknown or not complete"),
        ("json://127.0.0.1 nonsense", "address 2 is not like ntfy://… or mailto://…"),
        ("mailto://", "address 1 (mailto://…) is unknown or not complete"),
    ],
)
def test_an_unknown_address_is_refused_before_anything_is_made(program: Program, addresses: str, said: str) -> None:
    ended = program.start("run", program.grid(), env={**program.environment(), VARIABLE: addresses}).wait().must(2)
    assert f"error: {VARIABLE}: {said}" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert program.files() == {"grid.yaml"}


def test_without_apprise_the_refusal_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    with pytest.raises(ConfigError, match=r"is set, but apprise is not installed\. Run: pip install apprise"):
        sender({VARIABLE: "json://127.0.0.1"})


def test_without_addresses_nothing_is_sent_and_apprise_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    assert sender({}) is None
    assert sender({VARIABLE: "  "}) is None


# -- what is told, and when ------------------------------------------------------------------------------------------


class Told(Notifier):
    """A notifier whose messages are kept in `messages`."""

    def __init__(self, patience_s: float = 60.0, *, works: bool = True) -> None:
        self.messages: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self.looks = 0

        def send(title: str, text: str) -> bool:
            self.messages.append((title.removeprefix("ollama-sweep s: "), text))
            if not works:
                raise OSError("no network")
            return True

        super().__init__("s", send, self.warnings.append, patience_s)

    def _look_for_stall(self) -> None:
        super()._look_for_stall()
        self.looks += 1


def finished(status: Status = Status.OK) -> CellFinished:
    return CellFinished(CELL, Outcome(status), 1.0, will_retry=False)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """For the notifier a second passes with each call, and no time between."""
    now = [0.0]
    monkeypatch.setattr(notify, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def tick() -> None:
        now[0] += 1.0

    return tick


def test_no_progress_for_longer_than_a_step_may_take_is_told_once_until_a_cell_ends(
    pass_time: Callable[[], None],
) -> None:
    told = Told(patience_s=0.05)
    told(SweepStarted("s", 4, 0))
    told(CellStarted(CELL, 1))
    pass_time()
    until("the message", lambda: len(told.messages) == 1)
    told(Waiting("no server answers", 1.0))
    told(finished())
    pass_time()
    until("the next message", lambda: len(told.messages) == 2)
    told.close()
    assert [title for title, _ in told.messages] == ["no progress", "no progress"]
    assert "at num_ctx 512, num_batch 2" in told.messages[0][1]
    assert "waiting: no server answers" in told.messages[1][1]


def test_a_hold_is_no_stall(pass_time: Callable[[], None]) -> None:
    told = Told(patience_s=0.05)
    told(SweepStarted("s", 4, 0))
    told(OnHold("quiet hours until 18:00"))
    pass_time()
    until("a look for a stall", lambda: told.looks > 5)
    told.close()
    assert told.messages == []


def test_drift_is_told_once(program: Program, inbox: Inbox) -> None:
    program.script(slows={"after": 6, "factor": 0.95})
    environment = {**program.environment(), VARIABLE: inbox.address}
    program.start("run", program.grid(), "--set", "control=1", env=environment).wait().must()
    assert inbox.titles == ["ollama-sweep grid: the machine's speed has drifted", "ollama-sweep grid: done"]
    assert inbox.messages[0][1].startswith("-5.0% at num_ctx")


def test_an_exception_while_sending_is_one_warning() -> None:
    told = Told(works=False)
    told(finished(Status.OOM))
    told.done("Best: …")
    told.close()
    assert len(told.messages) == 2
    assert told.warnings == ["Warning: a notification (out of memory) could not be sent; the sweep goes on"]
