"""A recording: what is written comes back, what is not sound is refused in one line, and loads are drawn repeatably."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import recording_maker as maker

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.outcome import Effective, Flag, Purpose, Status
from ollama_sweep.core.recording.drawing import load_of
from ollama_sweep.core.recording.model import FailedIn, RecordedLoad
from ollama_sweep.core.recording.reading import read
from ollama_sweep.core.recording.writing import packed, written

SMALL = maker.recording([1024, 2048], [32, 64], more={(2048, 64): [maker.failed(12.5)]})
TEXT = written(SMALL)


def changed(change: Callable[[list[Any]], object]) -> bytes:
    """The text of the small recording with something else in its lines."""
    lines = [json.loads(line) for line in TEXT.splitlines()]
    change(lines)
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def test_what_is_written_comes_back_also_packed() -> None:
    kinds = [
        RecordedLoad(Status.TIMEOUT, "run", Purpose.PASS, frozenset({Flag.BUSY, Flag.SPILLED}), 3.5, 600.0,
                     FailedIn.REQUEST, Effective(1024, 32, 5, 3, 3.0), (maker.run(3.25, warmup=True),)),
        RecordedLoad(Status.ERROR, "not_believed", Purpose.CONTROL, frozenset(), 3.5, 0.0, FailedIn.JUDGING,
                     Effective(), (maker.run(3.25),)),
    ]  # fmt: skip
    whole = maker.recording([1024, 2048], [32], more={(1024, 32): kinds}, noise=0)
    found = read(written(whole).encode(), "f")
    assert found.cells[0].loads[:2] == tuple(kinds)
    assert found == read(packed(written(found)), "f")
    assert found.digest != read(TEXT.encode(), "f").digest
    sizes = [cell.loads[-1].measured[0].prompt_eval_rate for cell in found.cells]
    assert all(sizes)


def test_five_hundred_cells_are_small() -> None:
    text = written(maker.recording(range(1024, 26 * 1024, 1024), range(32, 672, 32)))
    assert len(text.splitlines()) == 501
    assert len(packed(text)) <= 200_000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "f: is empty"),
        (b"\xff\xfe", "f: is no recording: it is not UTF-8"),
        (b"num_ctx,num_batch", "f:1: is no JSON"),
        (b"[1]", "f:1: the recording: [1] instead of an object"),
        (b'{"results": []}', "f:1: is no recording: the first line has no version"),
        (changed(lambda lines: lines[0].update(recording=2)), "f:1: is a recording of version 2, and this"),
        (changed(lambda lines: lines[0].update(recording="1")), 'f:1: recording: "1" is no version'),
        (TEXT.encode()[:-10], "f:5: is no JSON"),
        (changed(lambda lines: lines.pop()), "f: holds 3 of 4 cells: it is cut off"),
        (packed(TEXT)[:-30], "f: is cut off"),
        (b"\x1f\x8b" + b"?" * 40, "f: is no sound gzip file"),
        (changed(lambda lines: lines[0].pop("machine")), "f:1: the recording: machine is missing"),
        (changed(lambda lines: lines[0].update(machin="x")), "unknown field machin. Did you mean machine?"),
        (changed(lambda lines: lines[0].update(recorded_at="today")), 'recorded_at: "today" is no time'),
        (changed(lambda lines: lines[0].update(models=[])), "models: must name at least one"),
        (changed(lambda lines: lines[2]["at"].pop()), "at: [1024] instead of a value for each of"),
        (changed(lambda lines: lines[2].update(at=[1, 64])), "f:3: the cell: num_ctx 1 is not in the grid"),
        (changed(lambda lines: lines.__setitem__(2, lines[1])), "f:3: the cell is there twice (first on line 2)"),
        (changed(lambda lines: lines[1].update(model="other")), 'the model "other" is not among the models'),
        (changed(lambda lines: lines[1]["loads"][0].update(status="fine")), 'status: "fine" instead of one of'),
        (changed(lambda lines: lines[1]["loads"][0].update(load_s=-1)), "a load: load_s: -1 instead of seconds"),
        (changed(lambda lines: lines[1]["loads"][0].update(load_s=1e400)), "f:2: Infinity is not a number of JSON"),
        (changed(lambda lines: lines[0].update(name="\ud800")), "f:1: name: holds half of a character"),
        (TEXT.replace('"num_predict":2', '"num_predict":1e400').encode(), "f:1: options.num_predict: Infinity instead"),
        (TEXT.replace('"remark"', '"name"').encode(), "f:1: name is given twice"),
        (changed(lambda lines: lines[1]["loads"][0].pop("runs")), "f:2: a load: it is ok and has no raw runs"),
        (changed(lambda lines: [line.update(loads=[]) for line in lines[1:]]), "f: holds no raw runs"),
        (changed(lambda lines: lines[1]["loads"][0]["runs"].reverse()), "a warm-up comes after a measured run"),
        (changed(lambda lines: lines[1]["loads"][0]["runs"][1].__setitem__(4, 99999)), "at most the time of the"),
        (changed(lambda lines: lines[1]["loads"][0]["runs"][1].__setitem__(4, 1e-9)), "a rate of at most 10000000"),
        (changed(lambda lines: lines[1]["loads"][0]["runs"][1].__setitem__(3, 1.5)), "1.5 instead of a whole number"),
        (changed(lambda lines: lines[1]["loads"][0]["runs"][1].__setitem__(3, None)), "it is believed and has no"),
        (changed(lambda lines: lines[1]["loads"][0].update(flags=["odd"])), 'flags: "odd" is no flag'),
        (changed(lambda lines: lines[1]["loads"][0].update(failed_in="load")), "a load: one that failed says in what"),
    ],
)  # fmt: skip
def test_what_is_not_sound_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(data, "f")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_loads_come_in_their_order_then_they_are_drawn_among_the_recorded_ones() -> None:
    cell = maker.recording([1024], [32], loads=3).cells[0]
    assert [load_of(cell, number).load for number in range(3)] == list(cell.loads)
    further = [load_of(cell, number).load for number in range(3, 60)]
    assert {cell.loads.index(load) for load in further} == {0, 1, 2}
    assert further == [load_of(cell, number).load for number in range(3, 60)]
    by_seed = [[load_of(cell, number, seed).load.load_s for number in range(12)] for seed in (1, 2)]
    assert by_seed[0] != by_seed[1]


def test_a_request_beyond_the_recorded_ones_is_one_of_the_measured_runs() -> None:
    cell = maker.recording([1024], [32]).cells[0]
    drawn = load_of(cell, 0)
    assert [drawn.request(number) for number in range(4)] == list(cell.loads[0].runs)
    assert {id(drawn.request(number)) for number in range(4, 60)} == {id(run) for run in cell.loads[0].measured}
