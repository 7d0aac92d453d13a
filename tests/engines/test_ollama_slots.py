"""Whether a runner answered others while it answered us, by what llama-server says of its slots."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ollama_sweep.engines.ollama.slots import Slots
from ollama_sweep.machine import crew


@contextlib.contextmanager
def runner(answers: list[Any]) -> Iterator[int]:
    """The port of a runner that gives these answers one after the other; an int is an error code, a str no JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.pop(0)
            self.send_response(found if isinstance(found, int) else 200)
            self.end_headers()
            self.wfile.write(found.encode() if isinstance(found, str) else json.dumps(found).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        crew.start(threading.Thread(target=listening.serve_forever, args=(0.02,)))
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()


def slots(*tasks: int | None, busy: int | None = None) -> list[dict[str, Any]]:
    """As llama-server writes them; a slot that never had a request has no task."""
    return [
        {"id": number, "n_ctx": 1024, "is_processing": number == busy, **({} if task is None else {"id_task": task})}
        for number, task in enumerate(tasks)
    ]


@pytest.mark.parametrize(
    ("before", "after", "others"),
    [
        (slots(None, None), slots(3, None), False),
        (slots(3, None), slots(7, None), False),
        (slots(3, 5), slots(3, 9), False),
        (slots(3, 5), slots(3, 9, busy=1), False),
        (slots(3, None), slots(7, 8), True),
        (slots(3, None), slots(7, 8, busy=1), True),
        (slots(3, 5, busy=1), slots(7, 5), True),
        (slots(3, 5, busy=1), slots(7, 5, busy=1), True),
        (501, slots(7, 8), False),
        (slots(3, 5), 501, False),
        ("no JSON", slots(7, 8), False),
        ({"error": "none"}, slots(7, 8), False),
        ([1, 2], slots(7, 8), False),
    ],
)
def test_others_are_seen_where_another_slot_was_used(before: Any, after: Any, *, others: bool) -> None:
    with runner([before, after]) as port:
        watched = Slots(lambda: port)
        with watched.during():
            pass
    assert watched.saw_others is others


def test_our_own_requests_at_once_are_no_others_and_what_was_seen_once_stays() -> None:
    with runner([slots(1, None), slots(5, 6), slots(8, 9), slots(8, 9), slots(12, 9)]) as port:
        watched = Slots(lambda: port)
        with watched.during(), watched.during():
            pass
        assert not watched.saw_others
        for _ in range(2):
            with watched.during():
                pass
    assert watched.saw_others


def test_a_runner_that_is_gone_or_nowhere_says_nothing() -> None:
    with runner([]) as port:
        pass
    for where in (port, None):
        watched = Slots([where, where].pop)
        with watched.during():
            pass
        assert not watched.saw_others
