"""The order `auto` as a person meets it: what is loaded how often, going on in it, and the time that is left."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sweeping import Program, json_of, program

from ollama_sweep import load
from ollama_sweep.core.errors import Stopped
from ollama_sweep.core.events import CellFinished, Event
from ollama_sweep.engines import fake
from ollama_sweep.plan.preview import preview
from ollama_sweep.results.status import status_of
from ollama_sweep.run.session import measure
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.store.reader import Reader

SOME: dict[str, Any] = {
    "model": ["a", "b"], "num_ctx": [512, 1024, 2048], "num_batch": [2, 4], "server": "managed", "repeats": 1,
    "dimensions": {"temperature": [0, 1], "flash_attention": [False, True]},
}  # fmt: skip
CELLS = 48
COSTS: dict[str, Any] = {
    "models": ["a", "b"], "seconds": 10, "loads": {"reload": 60, "model": 100, "restart": 130}, "slower": {"b": 4},
}  # fmt: skip


def by_its_own_clock() -> Any:
    """The scripted engine takes its seconds by a clock that runs as fast as it can."""
    return mock.patch.object(fake.Engine, "is_replayed", True)


def measured(program: Program, config: Path, *, until: int = CELLS) -> list[tuple[float, float]]:
    """What is left after each cell: as it was said, and when that was. Stopped after so many cells."""
    said: list[tuple[float, float]] = []
    stopping = Stopping()

    def listen(event: Event) -> None:
        if isinstance(event, CellFinished):
            said.append((event.seconds_left or 0.0, 0.0))
            if len(said) == until < CELLS:
                stopping.stop()

    db = program.folder / "sweeps.db"
    with mock.patch.dict("os.environ", program.environment()), by_its_own_clock():
        try:
            measure(load(config), db, listeners=[listen], stopping=stopping)
        except Stopped:
            assert until < CELLS
    own = "select finished_at from attempts where purpose is null order by id"
    ends = [datetime.fromisoformat(row["finished_at"]).timestamp() for row in program.rows(sql=own)]
    return [(left, end) for (left, _), end in zip(said, ends[-len(said) :], strict=True)]


def test_each_model_and_each_server_comes_once_and_a_sweep_that_was_stopped_goes_on_in_that_order(
    program: Program,
) -> None:
    program.script(**COSTS)
    config = program.grid(**SOME)
    found = json_of(program("plan", config, "--json"))
    assert found["loading"] == {"cells": CELLS, "loads": 24, "models": 1, "restarts": 2}
    said = (
        "In this order: 24 loads, 1 change of model, 2 restarts of the server; 24 cells in the load of the one before"
    )
    assert said in program("plan", config).must().stdout
    measured(program, config, until=17)
    measured(program, config)
    loaded = program.events("prepare")
    assert len(loaded) == CELLS
    assert [name for name, _ in groupby(label.split(", num_ctx")[0] for label in loaded)] == [
        "model a, flash_attention False", "model a, flash_attention True",
        "model b, flash_attention True", "model b, flash_attention False",
    ]  # fmt: skip
    kept = "select count(distinct cell_id) as cells, count(*) as attempts from attempts where status = 'ok'"
    assert program.rows(sql=kept) == [{"cells": CELLS, "attempts": CELLS}]


def test_an_engine_that_swaps_contexts_is_said_to_make_contexts(program: Program) -> None:
    program.script(**COSTS)
    said = program("plan", program.grid(**{**SOME, "server": None}, engine="fake_swap")).must().stdout
    (line,) = [line for line in said.splitlines() if line.startswith("In this order: ")]
    assert line == "In this order: 24 contexts, 1 change of model; 24 cells in the context of the one before"
    assert "in the order auto" not in said


def test_the_time_left_is_right_where_the_cells_to_come_are_of_a_model_that_is_slower(program: Program) -> None:
    """Half of the cells are of b, four times as slow. Once a few of it are known, so is the end."""
    program.script(**COSTS)
    said = measured(program, program.grid(**SOME))
    (_, end) = said[-1]
    for number, (left, at) in enumerate(said[:-1], 1):
        if number >= CELLS / 2 + 4:
            assert left == pytest.approx(end - at, rel=0.1), f"after {number} cells"


@pytest.mark.parametrize("control", [5, None, "900s"])
def test_the_time_left_knows_the_loads_of_the_control_cell_and_that_the_next_cell_needs_a_load_again(
    program: Program, control: object
) -> None:
    """The control cell is of a: while b is measured each of its loads is two changes of model."""
    program.script(**COSTS)
    said = measured(program, program.grid(**{**SOME, "control": control}))
    (ended,) = program.rows(sql="select max(finished_at) as at from attempts")
    end = datetime.fromisoformat(ended["at"]).timestamp()
    assert len(program.rows(sql="select 1 from controls")) >= 4
    for number, (left, at) in enumerate(said, 1):
        if CELLS / 2 + 6 <= number <= CELLS - 6:
            assert left == pytest.approx(end - at, rel=0.2), f"after {number} cells"


def test_status_and_plan_say_the_same_time_left_and_run_one_load_less(program: Program) -> None:
    """Whoever goes on loads what was loaded when the sweep was stopped. Controls are counted by all of them."""
    program.script(**COSTS)
    config = program.grid(**{**SOME, "control": None})
    left, _ = measured(program, config, until=31)[-1]
    with mock.patch.dict("os.environ", program.environment()), by_its_own_clock():
        planned = preview(load(config), program.folder / "sweeps.db").seconds_left
        with mock.patch("os.getpid", return_value=1), Reader.open(program.folder / "sweeps.db") as reader:
            shown = status_of(reader, reader.sweep("grid")).time.seconds_left
    assert shown is not None
    assert shown == pytest.approx(planned)
    assert left < shown < left + 4 * 130


def test_further_loads_change_models_and_servers_as_seldom_and_are_in_another_order_each_time(program: Program) -> None:
    program.script(models=["a", "b"], noise=0.02)
    program("run", program.grid(**SOME, passes=3, second_look="50%")).must()
    sql = "select purpose, model, server, cell_id from attempts a join cells c on c.id = cell_id order by a.id"
    rows = program.rows(sql=sql)
    loads = [row for row in rows if row["purpose"] == "pass"]
    orders = []
    for one in (loads[:CELLS], loads[CELLS:]):
        blocks = [
            [row["cell_id"] for row in some] for _, some in groupby(one, lambda row: (row["model"], row["server"]))
        ]
        assert [len(block) for block in blocks] == [12] * 4
        assert all(block != sorted(block) for block in blocks), "the cells of each are shuffled"
        assert len([*groupby(one, lambda row: row["model"])]) == 2
        orders.append(blocks)
    assert orders[0] != orders[1]
    sql = """select model from further_loads f join cells c on c.id = cell_id
        where purpose = 'second_look' and f.number = 1 order by place"""
    looked = [row["model"] for row in program.rows(sql=sql)]
    assert len(set(looked)) == 2
    assert len([*groupby(looked)]) == 2
