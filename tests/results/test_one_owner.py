"""One owner for each number: what shows a number says what the database says (docs/architecture.md has the table)."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import ROOT, clean_environment
from sweep_runner import Ended
from sweeping import Program, json_of, program

from ollama_sweep.core.outcome import AnswerRow, CellResult, Flag
from ollama_sweep.results.best import best_cells
from ollama_sweep.results.plots import PlotOptions, avg_by_model_durations, avg_by_model_score, heatmap
from ollama_sweep.store.reader import Reader

QUESTIONS = [
    {"id": f"q{number}", "category": "odd" if number % 2 else "even", "prompt": f"Say word {number} now.",
     "expect": {"facts": ["yes"]}}
    for number in range(6)
]  # fmt: skip
RIGHT = {f"word {number}": "yes it is so" if number % 3 else "no it is not" for number in range(6)}
CONTEXTS = (512, 1024, 2048)


def kept(program: Program) -> tuple[list[CellResult], list[AnswerRow]]:
    with Reader.open(program.folder / "sweeps.db") as reader:
        sweep = reader.sweeps()[0].sweep_id
        return list(reader.results(sweep)), list(reader.answers(sweep))


@pytest.fixture
def asked(program: Program) -> tuple[Program, Ended]:
    """Six questions in three contexts, each asked twice: the program and the end of its run."""
    path = program.folder / "questions.jsonl"
    path.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS), "utf-8")
    program.script(answers=RIGHT)
    tasks = {"items": {"data": path.name, "repeats": 2}}
    config = program.grid(task="items", tasks=tasks, prompt=None, num_ctx=list(CONTEXTS), num_batch=[4])
    return program, program("run", config).must()


def test_answers_say_the_same_everywhere(asked: tuple[Program, Ended]) -> None:
    program, ended = asked
    cells, rows = kept(program)
    assert len(cells) == 3
    ends = {(cell.metrics["score"], cell.metrics["score_low"], cell.metrics["score_high"]) for cell in cells}
    ((score, low, high),) = ends
    said = f"score {score:.2f} ({low:.2f}–{high:.2f})"
    assert said.replace("–", "-") in ended.stdout
    assert "pooled over 3 num_ctx" in ended.stdout
    report = program("report").must().stdout
    assert said in report
    assert "pooled over 3 num_ctx" in report
    (bars,) = avg_by_model_score.collect(rows, PlotOptions())
    bar = bars.groups["m"]["items"]
    assert bar.value == pytest.approx(score)
    assert bar.interval == pytest.approx((low, high))
    assert bar.text.endswith("(n = 36 of 6 questions)")
    assert "pooled over 3 num_ctx" in bars.facts
    assert "pooled over 3 num_ctx" in avg_by_model_durations.collect(rows, PlotOptions())[0].facts
    assert best_cells(cells, "score").winner is not None
    assert json_of(program("best", "--metric", "score", "--json"))["best"]["low"] == low
    exported = json.loads(program("export", "--format", "json").must().stdout)["results"]
    assert {(row["score"], row["score_low"], row["score_high"]) for row in exported} == ends


def test_means_and_categories_of_answers_have_one_aggregator(asked: tuple[Program, Ended]) -> None:
    program, _ = asked
    (group,) = json_of(program("report", "--json", "--out", "files"))["groups"]
    cells, _ = kept(program)
    numbers, categories = group["numbers"], group["categories"]
    assert group["pooled_over"] == {"num_ctx": 3}
    assert numbers["score"]["mean"] == pytest.approx(cells[0].metrics["score"])
    assert {cell.metrics["score_odd"] for cell in cells} == {categories["odd"]["mean_score"]}
    assert {cell.metrics["success_rate_even"] for cell in cells} == {1.0}
    assert group["requests_per_min"] == pytest.approx(60 / numbers["latency_s"]["mean"])
    for cell in cells:
        assert cell.metrics["requests_per_min"] == pytest.approx(60 / cell.metrics["latency_mean_s"])
    summary = json.loads((program.folder / "files" / "summary.json").read_text("utf-8"))["models"]["m"]
    assert summary["latency_s"] == numbers["latency_s"]
    assert summary["requests_per_min"] == group["requests_per_min"]
    (run,) = (json.loads(path.read_text("utf-8")) for path in (program.folder / "files").glob("run_*.json"))
    assert run["summary"]["scores"]["score"] == numbers["score"]["mean"]
    assert run["summary"]["category_breakdown"]["odd"]["avg_score"] == categories["odd"]["mean_score"]


def test_the_decode_speed_of_a_known_file_is_the_only_one_with_the_first_token(asked: tuple[Program, Ended]) -> None:
    program, _ = asked
    (group,) = json_of(program("report", "--json", "--out", "files"))["groups"]
    cells, rows = kept(program)
    (run,) = (json.loads(path.read_text("utf-8")) for path in (program.folder / "files").glob("run_*.json"))
    for row, result in zip(rows, run["results"], strict=True):
        assert row.ttft_s is not None
        assert row.eval_count is not None
        seconds = row.latency_s - row.ttft_s
        assert row.decode_tps == pytest.approx((row.eval_count - 1) / seconds)
        assert result["metrics"]["decode_tps"] == pytest.approx(row.eval_count / seconds)
    speeds = [row.decode_tps for row in rows]
    assert group["numbers"]["decode_tps"]["max"] == max(speed for speed in speeds if speed)
    assert max(cell.metrics["decode_tps_max"] for cell in cells) == group["numbers"]["decode_tps"]["max"]


@pytest.mark.parametrize(("num_batch", "is_unfilled"), [(9, False), (11, False), (13, False), (14, True)])
def test_whether_the_prompt_fills_num_batch(program: Program, num_batch: int, is_unfilled: bool) -> None:
    config = program.grid(num_ctx=[512], num_batch=[num_batch])
    program("run", config).must()
    (cell,), _ = kept(program)
    assert (Flag.UNFILLED in cell.flags) is is_unfilled
    (data,) = heatmap.collect([cell], PlotOptions(prompt_tokens=9))
    assert (Flag.UNFILLED in data.cells[512, num_batch].flags) is is_unfilled
    assert ("unfilled" in json_of(program("best", config, "--json"))["best"]["flags"]) is is_unfilled
    assert json_of(program("plan", config, "--json"))["unfilled"] == ([num_batch] if is_unfilled else [])
    (row,) = json.loads(program("export", config, "--format", "json").must().stdout)["results"]
    assert ("unfilled" in row["flags"]) is is_unfilled


# -- a metric of another package -------------------------------------------------------------------------------------

TOY = """
from typing import ClassVar
from ollama_sweep.core.metrics import Kind, Metric
from ollama_sweep.tasks.base import Question, Setup
class Task:
    version: ClassVar[int] = 1
    kind: ClassVar[str] = "generate"
    metrics = (Metric("mistakes", "mistakes in an answer", "mistakes", -1, Kind.MEAN),
               Metric("mistakes_in_*", "", "mistakes", -1, Kind.MEAN))
    def setup(self, given):
        return Setup(questions=(Question("a", "Say a."), Question("b", "Say b.")), hash="toy", repeats=1)
    def score(self, question, generation):
        return {"mistakes": float(len(generation.text)), "unsaid": 1.5}
    def summarize(self, runs):
        return {"mistakes_in_a": 2.0}
"""
STALLING = """
from dataclasses import replace
from ollama_sweep.core.metrics import Metric
from ollama_sweep.engines import fake
class Engine(fake.Engine):
    metrics = (Metric("stalls", "stalls of a run", "stalls", -1),)
    def generate(self, cell, prompt, timeout_s, *, fresh=True):
        found = super().generate(cell, prompt, timeout_s, fresh=fresh)
        return replace(found, numbers={"stalls": float(cell.num_batch)})
"""
LOOK = """
import json
from pathlib import Path
from ollama_sweep.results.plots import PlotOptions, heatmap
from ollama_sweep.store.reader import Reader
with Reader.open(Path("sweeps.db")) as reader:
    cells = list(reader.results(reader.sweeps()[0].sweep_id))
data = [heatmap.collect(cells, PlotOptions(metric=name))[0] for name in ("mistakes", "mistakes_in_a", "unsaid")]
print(json.dumps([[one.title, [place for place, mark in one.cells.items() if mark.best]] for one in data]))
"""


def installed(folder: Path) -> dict[str, str]:
    """A package with the task `toy` and the engine `stalling` in this folder: the environment of who sees it."""
    (folder / "toy_task.py").write_text(TOY, "utf-8")
    (folder / "stalling_engine.py").write_text(STALLING, "utf-8")
    info = folder / "toy_task-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-task\nVersion: 1.0\n", "utf-8")
    points = "[ollama_sweep.tasks]\ntoy = toy_task\n[ollama_sweep.engines]\nstalling = stalling_engine\n"
    (info / "entry_points.txt").write_text(points, "utf-8")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def child(program: Program, env: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=program.folder, env={**clean_environment(), **program.environment(), **env},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_task_of_another_package_says_that_lower_is_better(program: Program, tmp_path_factory: Any) -> None:
    env = installed(tmp_path_factory.mktemp("package"))
    program.script(answers={"Say a": ["yes yes yes", "yes"], "Say b": ["yes yes yes", "yes"]})
    config = program.grid(task="toy", prompt=None, num_ctx=[512, 1024], num_batch=[4], warmup=0)
    sweep = str(program.file)
    child(program, env, sweep, "run", str(config))
    by_context = {cell.coordinates["num_ctx"]: cell.metrics["mistakes"] for cell in kept(program)[0]}
    least = min(by_context, key=lambda num_ctx: by_context[num_ctx])
    assert len(set(by_context.values())) == 2
    said = child(program, env, sweep, "best", "--metric", "mistakes")
    assert re.search(rf"^Best: num_ctx {least} .*: [\d.]+ mistakes", said)
    pictures: Sequence[Any] = json.loads(child(program, env, "-c", LOOK))
    assert pictures[0] == ["m: Mistakes in an answer in mistakes (lower is better)", [[least, 4]]]
    assert pictures[1][0] == "m: Mistakes in a in mistakes (lower is better)"
    assert pictures[2] == ["m: Unsaid", []]
    assert re.search(r"checks: mistakes [\d.]+", child(program, env, sweep, "report"))
    unsaid = child(program, env, sweep, "best", "--metric", "unsaid")
    assert "nobody says whether a larger unsaid is better; the largest is shown" in unsaid


def test_an_engine_of_another_package_gives_a_number_of_its_own(program: Program, tmp_path_factory: Any) -> None:
    env, sweep = installed(tmp_path_factory.mktemp("package")), str(program.file)
    child(program, env, sweep, "run", str(program.grid(engine="stalling", num_ctx=[512], num_batch=[2, 4])))
    assert [cell.metrics["stalls"] for cell in kept(program)[0]] == [2, 4]
    said = child(program, env, sweep, "best", "--metric", "stalls")
    assert "Best: num_ctx 512 with num_batch 2: 2 stalls" in said
    assert "nobody says" not in said


def test_what_a_task_declared_is_unknown_when_it_is_gone(program: Program, tmp_path_factory: Any) -> None:
    env = installed(tmp_path_factory.mktemp("package"))
    config = program.grid(task="toy", prompt=None, num_ctx=[512], num_batch=[4])
    child(program, env, str(program.file), "run", str(config))
    said = child(program, {"PYTHONPATH": str(ROOT)}, str(program.file), "best", "--metric", "mistakes")
    assert "nobody says whether a larger mistakes is better" in said
