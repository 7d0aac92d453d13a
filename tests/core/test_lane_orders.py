"""What lanes tell each other: written and read back as it was, and refused where it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.lanes import order as lines
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.lanes.lane import Standing, differences, mixed, shared_out
from ollama_sweep.core.lanes.order import Away, Gone, Handed, HandedIn, Line, Note, Order, Ready, Resting, RunMade
from ollama_sweep.core.outcome import Answer, Effective, Flag, Outcome, Purpose, Run, Series, Status, Summary
from ollama_sweep.core.outcome import Line as Readings
from ollama_sweep.core.surface.goal import Runs

CELL = Cell((("num_ctx", 512), ("num_batch", 64)), "m", (("num_batch", 64), ("num_ctx", 512), ("temperature", 0.5)))
RUN = Run(
    1, False, "nonce", 9, 0, 0.5, 18.0, 2, 0.1, 20.0, 0.7, None, None, 0.8, True, raw="said\n\x1b[0m",
    scores={"score": 1.0}, answer=Answer("q", "c", "why?", "because \ud83d", thoughts="hm"),
)  # fmt: skip
ORDER = Order(
    "d" * 32, "grid", 7, 1, "c1:abc", CELL, "gpu0", 600.0, loads=((RUN,), ()), runs=Runs(most=1, expected=2.0)
)
HANDED = Handed(
    ORDER,
    Outcome(
        Status.OK, flags=frozenset({Flag.BUSY}), runs=(RUN,), summary=Summary(1, 9, 18.0, scores={"a": 0.5}),
        effective=Effective(512, 64, others_loaded=("x",)),
        series=Series(1.0, 0.5, None, {"rss_bytes": Readings(1.0, 2.0, (None, 1.5))}),
    ),
    "0.34.0", 3.5, 42,
)  # fmt: skip
SAID: list[Line] = [
    Ready(Standing("fake", "1.0", "here", {"m": "sha256:x"}, {"gpus": "A"}, True)),
    RunMade(2, True, 18.5),
    Note("two\nlines"),
    Away("it is down", 2.0),
    Resting("30 s"),
    HandedIn("000000000007-dddddddd.json", 7),
    Gone("stopped"),
    Gone(),
]


def test_orders_and_finished_attempts_come_back_as_they_were() -> None:
    assert lines.order_of(plain.as_text(ORDER), "x") == ORDER
    assert lines.handed_of(plain.as_text(HANDED), "x") == HANDED
    assert plain.as_text(HANDED).isascii()
    assert "\n" not in plain.as_text(HANDED)


@pytest.mark.parametrize("said", SAID, ids=lambda said: type(said).__name__)
def test_lines_come_back_as_they_were(said: Line) -> None:
    assert lines.said_in(lines.line_of(said), "x") == said
    assert "\n" not in lines.line_of(said)


@given(st.from_type(Outcome).filter(lambda one: one == one))
def test_every_outcome_comes_back(outcome: Outcome) -> None:
    try:
        text = plain.as_text(outcome)
    except ValueError:  # NaN and infinity are never sent
        return
    assert plain.of_text(Outcome, text, "x") == outcome


def without(name: str) -> dict[str, Any]:
    found = plain.plain(HANDED)
    del found[name]
    return dict(found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**plain.plain(HANDED), "extra": 1}, "x: Handed: unknown field extra."),
        ({**plain.plain(HANDED), "outcom": 1}, "Did you mean outcome?"),
        (without("order"), "x: Handed.order is missing"),
        ({**plain.plain(HANDED), "took_s": "3"}, 'x: Handed.took_s: "3" is not a number'),
        ({**plain.plain(HANDED), "pid": 1.5}, "x: Handed.pid: 1.5 is not a whole number"),
        ({**plain.plain(HANDED), "pid": True}, "x: Handed.pid: true is not a whole number"),
        ({**plain.plain(HANDED), "outcome": {"status": "fine"}}, 'x: Handed.outcome.status: "fine" is not one of'),
        ({**plain.plain(HANDED), "outcome": []}, "x: Handed.outcome: [] is not an object"),
        ({**plain.plain(HANDED), "version": 2}, "x: is of version 2, and this program reads 1: update the older one"),
        (without("version"), "x: is of version None"),
        ([], "x: dict: [] is not"),
    ],
)
def test_what_is_no_finished_attempt_is_told_in_a_line(content: object, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        lines.handed_of(json.dumps(content), "x")
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "nonsense", '{"version":1,"version":1}', '{"version": NaN}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        lines.handed_of(text, "x")


@pytest.mark.parametrize(
    "line", ["", "hello", "{}", '{"ready": {}, "gone": {}}', '{"shout": {}}', '{"note": {"text": 1}}']
)
def test_a_line_of_something_else_is_refused(line: str) -> None:
    with pytest.raises(ConfigError):
        lines.said_in(line, "the process of gpu0")


def test_an_order_says_what_it_is_for() -> None:
    made = Order("d", "s", 1, 1, "k", CELL, "a", 1.0, purpose=Purpose.CONTROL)
    assert lines.order_of(plain.as_text(made), "x").purpose is Purpose.CONTROL


@pytest.mark.parametrize(
    ("cores", "lanes", "shares"),
    [
        ([(0, 4), (1, 5), (2, 6), (3, 7)], 2, [(0, 1, 4, 5), (2, 3, 6, 7)]),
        ([(0,), (1,), (2,)], 2, [(0,), (1,)]),
        ([(0,), (1,)], 1, [(0, 1)]),
        ([(0,)], 2, []),
    ],
)
def test_cores_are_shared_out_evenly_with_all_their_threads(
    cores: list[tuple[int, ...]], lanes: int, shares: list[tuple[int, ...]]
) -> None:
    assert shared_out(cores, lanes) == shares


def test_lanes_of_one_class_differ_only_in_which_they_are() -> None:
    one, other = (
        Standing("ollama", "0.34", "", fingerprint={"gpus": "L4", "CUDA_VISIBLE_DEVICES": number}) for number in "01"
    )
    assert one.kind == other.kind
    assert differences({"gpus": "L4", "engine_version": "1"}, {"gpus": "A10", "engine_version": "1"}) == [
        "gpus L4, not A10"
    ]


def test_lanes_that_are_not_alike_have_surroundings_of_all() -> None:
    found = mixed([{"gpus": "L4", "system": "Linux"}, {"gpus": "A10", "system": "Linux"}, {"gpus": "L4", "x": "1"}])
    assert found == {"gpus": "A10 | L4", "system": "Linux", "x": "1"}
