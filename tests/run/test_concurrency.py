"""Several questions in flight at once: how many are, what is kept, what a failure ends, and what cannot."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from ollama_fixture import until
from openai_server import Reply, chunk, end, scripted_server, stream, usage
from PIL import Image
from sweeping import Program, json_of, program

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, Stopped
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.engines.base import Engine, EngineInfo
from ollama_sweep.machine.telemetry import NoTelemetry
from ollama_sweep.plan.config import load_spec
from ollama_sweep.plan.lengths import SentPrompt
from ollama_sweep.results.plots import PlotOptions
from ollama_sweep.results.plots import concurrency as picture
from ollama_sweep.run import questions
from ollama_sweep.run.questions import Asking
from ollama_sweep.run.session import SessionOptions, measure
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.store.reader import Reader
from ollama_sweep.tasks.base import Question, Setup
from ollama_sweep.tasks.chat import Task

PLACES = ("France", "Japan", "Spain", "Peru", "Ghana", "Nepal")
GIVE_UP_S = 60.0
COLUMNS = {"requests_per_s", "tokens_per_s_total", "ttft_s_p50", "ttft_s_p95", "served_parallel"}


def grid(program: Program, *, asked: Sequence[str] = PLACES, **keys: Any) -> Path:
    """A sweep of a prompt set of its own, one cell for each value of `concurrency`."""
    prompts = [{"id": name.lower(), "category": "c", "prompt": f"The capital of {name}?"} for name in asked]
    folder = program.folder / "prompts"
    folder.mkdir(exist_ok=True)
    (folder / "capitals.yaml").write_text(json.dumps({"version": 1, "prompts": prompts}))
    given = {"task": "capitals", "prompt": None, "num_ctx": 512, "num_batch": 64, "warmup": 0, "retries": 0,
             "tasks": {"capitals": {"repeats": 1, "num_predict": 8}}, "interim": "off", "control": "off"}  # fmt: skip
    return program.grid(**{**given, **keys})


def rows(program: Program) -> list[dict[str, Any]]:
    return list(json_of(program("export", "--format", "json"))["results"])


def items(program: Program) -> list[tuple[str, str]]:
    """What was asked and whether it failed, in the order in which it is stored."""
    with Reader.open(program.folder / "sweeps.db") as reader:
        return [(row.answer.item, row.answer.failure) for row in reader.answers(reader.sweeps()[0].sweep_id)]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "RETRY_PAUSE_S", 0.0)


# -- how many, and what is kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [2, 4, 6, 100])
def test_so_many_are_in_flight_and_kept_in_the_order_of_the_questions(concurrency: int, program: Program) -> None:
    program.script(together=min(concurrency, 6), item_failures={"France": ["error", "error", "ok"]})
    program("run", grid(program, concurrency=concurrency)).must()
    (row,) = rows(program)
    assert (row["status"], row["answers"], row["failed_answers"]) == ("ok", 6, 0)
    assert items(program) == [(name.lower(), "") for name in PLACES]
    assert COLUMNS - {"served_parallel"} <= {name for name, value in row.items() if value is not None}


def test_one_at_a_time_is_the_cell_that_it_always_was(program: Program) -> None:
    program("run", grid(program)).must()
    (before,) = rows(program)
    config = grid(program, concurrency=[1, 3])
    assert "1 done, 1 to run" in program("plan", config).must().stdout
    program("run", config).must()
    assert len(program.events("generate")) == 12
    assert len(program.events("prepare")) == 2
    one, three = rows(program)
    assert (one["concurrency"], three["concurrency"], one["cell"]) == (1, 3, before["cell"])
    assert three["cell"] != one["cell"]
    assert COLUMNS - {"served_parallel"} <= {name for name, value in one.items() if value is not None}
    program("run", grid(program, name="fixed", concurrency=3)).must()
    assert len(program.events("generate")) == 12


def test_values_follow_each_other_in_one_load(program: Program) -> None:
    config = grid(program, concurrency={"start": 1, "end": 4, "factor": 2}, num_ctx=[512, 1024], num_thread=[1, 2])
    shown = json_of(program("plan", config, "--json"))
    assert list(shown["dimensions"]) == ["num_thread", "num_ctx", "num_batch", "concurrency"]
    assert shown["dimensions"]["concurrency"] == [1, 2, 4]
    excluded = grid(program, name="some", concurrency=[1, 2, 4], exclude="concurrency > 2")
    assert json_of(program("plan", excluded, "--json"))["cells"] == 2


def test_reports_pictures_and_the_end_of_a_run_show_it(program: Program) -> None:
    said = program("run", grid(program, concurrency=[1, 2, 3], num_ctx=[512, 1024])).must().stdout
    assert "    concurrency 3, best of 2 cells: " in said
    assert " requests/s, " in said
    report = program("report").must().stdout
    assert "requests_per_s" in report
    assert "m, concurrency 2, best of 2 cells: " in report
    (file,) = json_of(program("plot", "concurrency", "--metric", "requests_per_s", "--json"))["files"]
    assert file.endswith("/concurrency_requests_per_s.png")
    with Image.open(program.folder / file) as image:
        assert image.size[0] >= 1500
    assert "concurrency" in program("best", "--metric", "requests_per_s").must().stdout
    with Reader.open(program.folder / "sweeps.db") as reader:
        cells = list(reader.results(reader.sweeps()[0].sweep_id))
    speed, wait = picture.collect(cells, PlotOptions())
    assert [line.name for line in speed.lines] == ["num_ctx 512", "num_ctx 1024"]
    assert [[count for count, _, _ in line.points] for line in wait.lines] == [[1, 2, 3]] * 2
    assert (speed.metric.name, wait.metric.name, speed.ticks) == ("tokens_per_s_total", "ttft_s_p95", [1, 2, 3])
    alone = [replace(cell, coordinates={"num_ctx": 512}) for cell in cells]
    with pytest.raises(ConfigError, match="no cell has concurrency as a dimension"):
        picture.collect(alone, PlotOptions())


# -- what cannot -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"engine": "ollama"}, "concurrency: the engine ollama asks one question at a time, so concurrency can "),
        ({"engine": "ollama"}, "others can: lmstudio, ollama_http, openai"),
        ({"engine": "llamacpp"}, "the engine llamacpp asks one question at a time"),
        ({"engine": "sentence_transformers"}, "the engine sentence_transformers asks one question at a time"),
        ({"task": "prompt_eval", "tasks": None, "prompt": {"text": "x"}}, "the task prompt_eval asks one prompt again"),
        ({"task": ["capitals", "prompt_eval"], "prompt": {"text": "x"}}, "with questions; here capitals can"),
        ({"task": "embeddings", "tasks": None}, "the task embeddings sends its rows in batches"),
        ({"concurrency": 0}, "concurrency: 0 is outside 1 to 512"),
        ({"concurrency": 513}, "concurrency: 513 is outside 1 to 512"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": "two"}, "concurrency"),
        ({"concurrency": [2, 2]}, "concurrency: 2 is listed twice"),
        ({"concurrency": []}, "concurrency: the list is empty"),
        ({"concurency": 2}, "Did you mean concurrency?"),
    ],
)  # fmt: skip
def test_what_cannot_is_refused_with_what_can(keys: dict[str, Any], said: str, program: Program) -> None:
    config = grid(program, **{"concurrency": [1, 4], **keys})
    before = program.files()
    for command in ("plan", "run"):
        ended = program(command, config).must(2)
        assert said in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert program.files() == before


def test_one_at_a_time_is_allowed_to_all(program: Program) -> None:
    program("plan", grid(program, concurrency=[1], task="prompt_eval", tasks=None, prompt={"text": "a b"})).must()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "num_parallel is not set, and Ollama runs 1 at once"),
        ({"num_parallel": 2}, "num_parallel is 2"),
        ({"num_parallel": [1, 8]}, "num_parallel goes down to 1"),
        ({"OLLAMA_NUM_PARALLEL": 2}, "num_parallel is 2"),
        ({"num_parallel": 4}, ""),
        ({"num_parallel": 2, "concurrency": 2}, ""),
    ],
)
def test_a_queue_is_foretold(keys: dict[str, Any], said: str, program: Program) -> None:
    config = grid(program, **{"concurrency": [1, 4], "server": "managed", **keys})
    few = json_of(program("plan", grid(program, name="few", concurrency=8), "--json"))["warnings"]
    assert few == ["concurrency goes up to 8, and capitals asks 6 in a cell: no more are in flight (repeats, limit)"]
    warnings = " ".join(json_of(program("plan", config, "--json"))["warnings"])
    assert said in warnings
    assert bool(said) == ("wait in the server's queue" in warnings)


# -- failures ----------------------------------------------------------------------------------------------------------


class Held(Engine):
    """One question comes too late; the others end only once what came of it was handed back."""

    asks_at_once = True

    def __init__(self) -> None:
        super().__init__()
        self.did: list[str] = []
        self.in_flight = 0

    def describe(self) -> EngineInfo:
        return EngineInfo("held", "1")

    def prepare(self, cell: Cell) -> Effective:
        self.did.append("prepare")
        assert not cell.option("concurrency")
        return Effective()

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        self.in_flight += 1
        try:
            self.did.append(prompt)
            if "late" in prompt:
                raise CellFailed(Status.TIMEOUT, "run", "no answer in time")
            if "slow" in prompt:
                until("the late one is back", lambda: "question 1" not in [one.name for one in threading.enumerate()])
            return Generation("yes", 3, 0.1, eval_count=2, client_duration_s=0.5, ttft_s=0.1)
        finally:
            self.in_flight -= 1

    def release(self, *, failed: bool) -> None:
        self.did.append(f"rest beside {self.in_flight}")


def test_after_a_timeout_the_others_end_then_it_rests_and_the_rest_is_asked() -> None:
    asked = tuple(Question(name, name) for name in ("late", "slow", "third", "fourth"))
    engine = Held()
    cell = Cell((("concurrency", 2),), "m", (("concurrency", 2), ("num_predict", 8)), task="chat")
    asking = Asking(
        cell, Effective(), Task(), Setup(asked), SentPrompt(asked, "h", None), engine, 60.0, NoTelemetry(),
        lambda event: None,
    )  # fmt: skip
    runs = list(asking.ask_all(1))
    assert [run.believed for run in runs] == [False, True, True, True]
    assert [run.number for run in runs] == [1, 2, 3, 4]
    assert sorted(engine.did[:2]) == ["late", "slow"]
    assert engine.did[2:4] == ["rest beside 0", "prepare"]
    assert sorted(engine.did[4:]) == ["fourth", "third"]


@pytest.mark.parametrize(
    ("failures", "status", "reason", "failed"),
    [
        ({"Japan": ["timeout"]}, "ok", "", 1),
        ({"Japan": ["error"] * 3, "Peru": ["error", "ok"]}, "ok", "", 1),
        ({name: ["error"] for name in PLACES}, "error", "no_answers", 6),
        ({"Spain": ["crashed"]}, "crashed", "assert", None),
        ({"Ghana": ["oom"]}, "oom", "host_oom", None),
    ],
)
def test_a_failure_costs_its_question_or_its_cell(
    failures: dict[str, list[str]], status: str, reason: str, failed: int | None, program: Program
) -> None:
    program.script(item_failures=failures)
    program("run", grid(program, concurrency=3))
    (row,) = rows(program)
    assert (row["status"], row["reason"] or "") == (status, reason)
    stored = items(program)
    assert [item for item, _ in stored] == [name.lower() for name in PLACES if name.lower() in dict(stored)]
    if failed is not None:
        assert [item for item, failure in stored if failure] == [name.lower() for name in failures][:failed]


def test_a_server_that_is_away_ends_the_attempt_and_is_waited_for(program: Program) -> None:
    program.script(item_failures={"Japan": ["unavailable", "ok"]})
    program("run", grid(program, concurrency=3)).must()
    assert [row["status"] for row in rows(program)] == ["ok"]
    sql = "select status, reason from attempts order by number"
    assert [tuple(row.values()) for row in program.rows(sql=sql)] == [
        ("interrupted", "engine_unavailable"), ("ok", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("cut", "status"), [(2, "ok"), (1000, "error")])
def test_a_server_that_closes_its_connections(cut: int, status: str, program: Program) -> None:
    whole, half = stream(chunk("Yes"), chunk(" it is"), end(), usage(12, 2)), stream(chunk("Ye"), done=False, cut=True)
    with scripted_server() as server:
        server.chat(*[half] * min(cut, 20), half if cut > 20 else whole)
        config = grid(program, model="small-model", num_ctx=None, num_batch=None, engine="openai", concurrency=4)
        program("run", config, "--host", server.host)
    (row,) = rows(program)
    assert row["status"] == status
    if status == "ok":
        assert (row["answers"], items(program)) == (6, [(name.lower(), "") for name in PLACES])
        assert row["requests_per_s"] > 0


# -- stopping ----------------------------------------------------------------------------------------------------------


def asking_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("question ")]


def test_stop_now_ends_all_of_them(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(program.folder)
    config = grid(program, model="small-model", num_ctx=None, num_batch=None, engine="openai", concurrency=4)
    with scripted_server() as server:
        never = threading.Event()
        server.chat(stream(chunk("Yes"), done=False, wait=never))
        spec = load_spec(config, {"host": server.host})
        stopping, ended, options = Stopping(), threading.Event(), SessionOptions(share_server=True)
        raised: list[BaseException] = []

        def run() -> None:
            try:
                measure(spec, program.folder / "sweeps.db", stopping=stopping, options=options)
            except Stopped as error:
                raised.append(error)
            ended.set()

        threading.Thread(target=run, daemon=True).start()
        until("four are in flight", lambda: len(server.bodies("/v1/chat/completions")) == 4 or None)
        stopping.stop(now=True)
        assert ended.wait(GIVE_UP_S)
        until("no thread is left", lambda: not asking_threads())
        assert len(raised) == 1
        assert len(server.bodies("/v1/chat/completions")) == 4
    sql = "select cells.status, attempts.status as ended from cells join attempts on attempts.cell_id = cells.id"
    assert [tuple(row.values()) for row in program.rows(sql=sql)] == [("pending", "interrupted")]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR2])
def test_a_death_and_a_stop_in_the_middle_cost_the_cell_at_hand(how: signal.Signals, program: Program) -> None:
    gate = program.folder / "gate"
    program.script(gate=str(gate), together=3)
    config = grid(program, concurrency=3)
    running = program.start("run", config, env=program.environment())
    until("three are in flight", lambda: len(program.events("generate")) == 3)
    running.kill(how)
    assert running.wait().returncode != 0
    (cell,) = program.rows_now("select status from cells")
    assert cell["status"] == ("started" if how == signal.SIGKILL else "pending")
    gate.touch()
    program("run", config).must()
    (row,) = rows(program)
    assert (row["status"], row["answers"], row["attempts"]) == ("ok", 6, 1)
    assert items(program) == [(name.lower(), "") for name in PLACES]
