"""`compare`: what two names mean, which cells are the same one, what is said of them, and by which exit code."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import compared
import pytest
from compared import Made
from older_database import lay_out
from PIL import Image
from store_helpers import failed
from sweeping import GRID, Program, json_of, program

import ollama_sweep
from ollama_sweep.core.outcome import Flag, Status
from ollama_sweep.results import plots
from ollama_sweep.results.compare.comparing import compare

__all__ = ["program"]
SLOWER, FASTER = (3, 4), (7,)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`before` and `after` in a.db: two cells 15 % slower, one 20 % faster, one without memory, one that spills, one
    noisy, one that crashes. `after` is in b.db as well, alone; `unknown` was measured in one load."""
    folder = tmp_path_factory.mktemp("compare")
    special = {
        12: failed(),
        13: compared.ok([230.0] * 3, Flag.SPILLED),
        14: compared.ok([230.0] * 3, Flag.NOISY),
        15: failed(Status.CRASHED, "assert", "GGML_ASSERT"),
    }
    after = Made("after", 2, lambda n: 0.85 if n in SLOWER else 1.2 if n in FASTER else 1.0, special=special)
    for each in (Made("before", 1), after, Made("unknown", 3, loads=1)):
        compared.save(folder / "a.db", each)
    compared.again(folder / "a.db", replace(after, seed=5, factor=lambda n: 1.0, special={}, loads=3))
    compared.save(folder / "b.db", replace(after, machine="another machine"))
    (folder / "after.yaml").write_text("name: after\n")
    return folder


@pytest.fixture
def told(program: Program, made: Path) -> Program:
    """The program in a folder with these databases."""
    for file in made.iterdir():
        (program.folder / file.name).write_bytes(file.read_bytes())
    return program


def by_position(found: dict[str, Any]) -> dict[int, dict[str, Any]]:
    (part,) = found["parts"]
    return dict(enumerate(part["cells"]))


def test_each_cell_has_its_word_and_those_in_doubt_are_left_out_and_counted(told: Program) -> None:
    found = json_of(told("compare", "before", "after@1", "--db", "a.db", "--json"))
    cells = by_position(found)
    words = {number: cell["verdict"] for number, cell in cells.items()}
    assert [number for number, word in words.items() if word == "slower"] == [*SLOWER]
    assert [number for number, word in words.items() if word == "faster"] == [*FASTER]
    assert (words[12], words[13], words[14], words[15]) == ("ok -> oom", "ok -> spilled", None, None)
    assert (cells[14]["left_out"], cells[15]["left_out"]) == ("flagged", "failed")
    (part,) = found["parts"]
    assert part["left_out"] == {"flagged": 1, "failed": 1}
    assert part["counts"]["slower"] == 2
    assert (cells[3]["a"]["loads"], cells[3]["a"]["runs"], cells[3]["b"]["loads"]) == (2, 6, 2)
    assert cells[3]["ratio"] == pytest.approx(0.85, abs=0.05)
    assert cells[3]["low"] < cells[3]["ratio"] < cells[3]["high"] < 0.95
    assert part["spreads"]["a"]["loads_df"] == 16


def test_where_all_runs_are_noisy_the_intervals_hold_it_and_one_noisy_cell_among_quiet_ones_is_out(
    program: Program,
) -> None:
    """What a shared machine makes of every cell is no reason to say nothing of any."""
    for name, seed, by in (("loud", 1, 1.0), ("again", 2, 1.0), ("half", 3, 0.5)):
        compared.save(
            program.folder / "a.db", Made(name, seed, dict.fromkeys(range(16), by).__getitem__, run_sigma=0.06, loads=3)
        )
    same = program("compare", "loud", "again", "--db", "a.db").must().stdout
    assert "Left out" not in same
    assert "Cells: 0 slower, 0 faster" in same
    assert re.search(r"\d+ of the cells are flagged noisy and judged all the same", same)
    halved = json_of(program("compare", "loud", "half", "--db", "a.db", "--json"))
    assert {cell["verdict"] for cell in by_position(halved).values()} == {"slower"}
    assert any("noisy" in cell["b"]["flags"] for cell in by_position(halved).values())

    special = {14: compared.ok([200.0, 225.0, 250.0], Flag.NOISY)}
    for name, seed in (("calm", 4), ("spoilt", 5)):
        compared.save(program.folder / "b.db", Made(name, seed, special=special if name == "spoilt" else {}))
    (part,) = json_of(program("compare", "calm", "spoilt", "--db", "b.db", "--json"))["parts"]
    assert part["left_out"] == {"flagged": 1}


def test_it_says_the_same_as_a_table_as_markdown_and_in_python(told: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    text = told("compare", "before", "after@1", "--db", "a.db").must().stdout
    assert "Cells: 2 slower, 1 faster" in text
    assert "1 ok -> oom, 1 ok -> spilled. Left out: 1 flagged, 1 failed." in text
    assert re.search(r"^slower +2048 +64 +1\d\d +1\d\d +-1\d\.\d %", text, re.MULTILINE)
    rows = [line for line in text.splitlines() if re.match(r"(ok|slower|faster|same|cannot|left)", line)]
    assert len(rows) == 16
    assert rows[0].startswith("ok -> oom")
    paged = told("compare", "before", "after@1", "--db", "a.db", "--markdown").must().stdout
    assert paged.count("\n| slower | ") == 2
    assert len({line.count("|") for line in paged.splitlines() if line.startswith("|")}) == 1
    monkeypatch.chdir(told.folder)
    found = ollama_sweep.compare("before", "after@1", db="a.db")
    assert found.text.split() == text.split()
    shown = json_of(told("compare", "before", "after@1", "--db", "a.db", "--json"))
    assert json.loads(json.dumps(found.as_dict())) == {name: shown[name] for name in found.as_dict()}


def test_exit_codes_are_for_those_who_ask(told: Program) -> None:
    words = ("compare", "before", "after@1", "--db", "a.db")
    told(*words).must(0)
    worse = told(*words, "--fail-over", "5%").must(7)
    assert re.fullmatch(
        r"error: B is slower than A by more than 5 % beyond noise, or lacks memory: 4 .*\n", worse.stderr
    )
    assert "slower" in worse.stdout
    told(*words, "--fail-over", "5%", "--strict").must(7)
    told("compare", "before", "after@2", "--db", "a.db", "--fail-over", "5%").must(0)
    unknown = told("compare", "before", "unknown", "--db", "a.db", "--fail-over", "60%").must(0)
    assert "Noise of A" in unknown.stdout  # the loads of `before` speak for both
    strict = told("compare", "before", "unknown", "--db", "a.db", "--fail-over", "0%", "--strict").must(8)
    assert strict.stderr.startswith("error: whether B is slower than A by more than 0 % cannot be told: ")


def test_without_known_loads_only_memory_is_told(told: Program) -> None:
    compared.save(told.folder / "c.db", Made("one", 7, loads=1))
    compared.save(told.folder / "c.db", Made("two", 8, lambda n: 0.3, loads=1, special={5: failed()}))
    text = told("compare", "one", "two", "--db", "c.db").must().stdout
    assert "Cells: 0 slower, 0 faster, 0 same, 15 cannot tell, 1 ok -> oom." in text
    assert "Loads not known: cannot tell. 3 more loads" in text
    told("compare", "one", "two", "--db", "c.db", "--strict").must(8)
    told("compare", "one", "two", "--db", "c.db", "--strict", "--fail-over", "1%").must(7)


def test_a_control_tells_how_far_loads_differ_and_is_no_part_of_its_cell(program: Program) -> None:
    for name, factor in (("one", 1.0), ("two", 0.8)):
        compared.save(program.folder / "c.db", Made(name, 6, lambda n, f=factor: f, loads=1, controls=9))  # type: ignore[misc]
    found = json_of(program("compare", "one", "two", "--db", "c.db", "--json"))
    (part,) = found["parts"]
    assert part["spreads"]["a"]["loads_df"] == 9
    assert {(cell["a"]["loads"], cell["a"]["runs"]) for cell in part["cells"]} == {(1, 3)}
    assert part["counts"]["slower"] == 16
    rows = program.rows("c.db", "SELECT prompt_eval_rate FROM results WHERE sweep = 'one' AND position = 0")
    assert part["cells"][0]["a"]["value"] == pytest.approx(rows[0]["prompt_eval_rate"])


def test_a_control_cell_that_was_looked_at_again_still_tells_how_far_loads_differ(program: Program) -> None:
    """Its value is that of the loads after the choice; those before still stand beside the controls."""
    for name in ("one", "two"):
        compared.save(program.folder / "c.db", Made(name, 6, loads=1, controls=9, looks=3))
    (part,) = json_of(program("compare", "one", "two", "--db", "c.db", "--json"))["parts"]
    assert part["spreads"]["a"]["loads_df"] == 9 + 2
    assert [cell["a"]["loads"] for cell in part["cells"]] == [3, *[1] * 15]


# -- names -------------------------------------------------------------------------------------------------------------


def sides_of(ended: Any) -> tuple[str, str]:
    lines = ended.must().stdout.splitlines()
    return lines[0].removeprefix("A: "), lines[1].removeprefix("B: ")


def test_each_kind_of_name_means_its_sweep(told: Program) -> None:
    for name, meant in {
        "after": "sweep after of a.db",
        "after.yaml": "sweep after of a.db",
        "after.yaml@2": "sweep after of a.db, segment 2",
        "a.db:after": "sweep after of a.db",
        "a.db:after@1": "sweep after of a.db, segment 1",
        "b.db": "sweep after of b.db",
        "b.db@1": "sweep after of b.db, segment 1",
        "a.db": "sweep unknown of a.db",
    }.items():
        assert sides_of(told("compare", "before", name, "--db", "a.db")) == ("sweep before of a.db", meant), name
    other = told("compare", "before", "b.db", "--db", "a.db").stdout
    assert "different machines (a machine; another machine): this compares machines" in other
    assert "B is the sweep of a.db that ran last" in told("compare", "before", "a.db", "--db", "a.db").stdout


def refused(program: Program, message: str, *words: str | Path) -> None:
    before = {path: path.read_bytes() for path in program.folder.iterdir() if path.is_file()}
    ended = program("compare", *words)
    assert ended.returncode == 2, ended
    assert re.fullmatch(rf"error: {message}[^\n]*\n", ended.stderr), ended.stderr
    assert not ended.stdout
    assert {path: path.read_bytes() for path in program.folder.iterdir() if path.is_file()} == before


def test_what_fits_nothing_or_two_things_is_refused_in_one_line(told: Program) -> None:
    (told.folder / "before").write_bytes((told.folder / "b.db").read_bytes())
    (told.folder / "picture.png").write_bytes(b"\x89PNG")
    (told.folder / "gone.yaml").write_text("name: afte\n")
    cases = [
        (r"before is a database \(sweep after of before\) and a sweep's name \(sweep before of a.db\); ", "before",
         "after"),
        (r"beforr is no file, and no sweep of a.db; it has .*Did you mean before\?", "beforr", "after"),
        (r"a.db has no sweep aftr; it has .*Did you mean after\?", "after", "a.db:aftr"),
        (r"a.db has no sweep afte\. Did you mean after\?", "gone.yaml", "after"),
        (r"after@3: sweep after of a.db has no segment 3; it has @1 to @2", "after@3", "after"),
        (r"b.db@0: .* has no segment 0; it has one, @1", "after", "b.db@0"),
        (r"picture.png is no database and no sweep file", "picture.png", "after"),
        (r"\. is a folder; ", "after", "."),
        (r"A and B are both sweep after of a.db; give two sweeps, or two segments of one \(after@1 after@2\)", "after",
         "a.db:after"),
        (r"A and B are both sweep after of b.db; .*\(it has one\)", "b.db", "b.db:after@1"),
        (r"metric: unknown metric prompt_eval_raet\. .*Did you mean prompt_eval_rate\?", "after", "a.db:before",
         "--metric", "prompt_eval_raet"),
        (r"metric: eval_count cannot be compared: neither", "after", "a.db:before", "--metric", "eval_count"),
        (r"allow: modle cannot be allowed\. Known: .*Did you mean model\?", "after", "a.db:before", "--allow", "modle"),
        (r"--threshold: 5 is no percentage", "after", "a.db:before", "--threshold", "5"),
        (r"--threshold: 100% is no percentage", "after", "a.db:before", "--threshold", "100%"),
        (r"--fail-over: x is no percentage", "after", "a.db:before", "--fail-over", "x"),
        (r"--picture: r.txt is no picture's name", "after", "a.db:before", "--picture", "r.txt"),
        (r"--markdown: give one of", "after", "a.db:before", "--markdown", "--json"),
    ]  # fmt: skip
    for message, *words in cases:
        refused(told, message, *words, "--db", "a.db")
    refused(told, "after is no file, and there is no database none.db", "after", "b.db", "--db", "none.db")


# -- which cells are the same one --------------------------------------------------------------------------------------


def test_another_model_prompt_or_engine_is_refused_unless_it_is_allowed(told: Program) -> None:
    for what, changes in {
        "model": {"digest": "sha256:other"},
        "prompt": {"prompt": "sha256:other"},
        "engine": {"engine": "other"},
    }.items():
        compared.save(told.folder / f"{what}.db", replace(Made("x", 4), **changes))  # type: ignore[arg-type]
        refused(told, rf"A .*; to compare them anyway: --allow {what}", "before", f"{what}.db", "--db", "a.db")
        told("compare", "before", f"{what}.db", "--db", "a.db", "--allow", f"task, {what}").must()


def test_cells_are_matched_by_their_place_and_never_by_key(told: Program) -> None:
    compared.save(told.folder / "c.db", Made("wide", 4, contexts=(2048, 4096, 16384), batches=(64, 4096)))
    found = json_of(told("compare", "before", "c.db", "--db", "a.db", "--json"))
    assert [cell["coordinates"] for cell in by_position(found).values()] == [
        {"num_ctx": 2048, "num_batch": 64}, {"num_ctx": 4096, "num_batch": 64},
    ]  # fmt: skip
    assert (found["only_a"], found["only_b"]) == (14, 4)
    compared.save(told.folder / "c.db", Made("apart", 4, batches=(1, 2)))
    refused(told, "A and B have no cell in common: A has num_batch 64, 128, 256, 512, B has 1, 2", "before",
            "c.db:apart", "--db", "a.db")  # fmt: skip


def test_a_dimension_that_one_side_varies_cannot_be_matched_and_a_fixed_one_is_no_matter(program: Program) -> None:
    files = {"plain": {}, "fixed": {"num_gpu": [1]}, "another": {"num_gpu": [2]}, "varied": {"num_gpu": [0, 1]}}
    for name, keys in files.items():
        program("run", program.grid(name, **keys)).must()
    text = program("compare", "plain", "fixed").must().stdout
    assert "Note: only B names num_gpu 1." in text
    assert "Note: A has num_gpu 1 and B 2." in program("compare", "fixed", "another").must().stdout
    assert "4 cannot tell" in text
    refused(program, r"B varies num_gpu \(0, 1\) and A does not", "plain", "varied")


def test_what_both_sides_share_is_one_measurement(program: Program) -> None:
    """Two sweeps in one database have equal cells in common."""
    program("run", program.grid("one")).must()
    program("run", program.grid("two")).must()
    assert "Left out: 4 the same measurement." in program("compare", "one", "two").must().stdout
    program("run", program.grid("two"), "--db", "other.db").must()
    assert "4 cannot tell" in program("compare", "one", "other.db").must().stdout


def test_a_cell_that_was_measured_again_has_two_loads(program: Program) -> None:
    """More repeats are a further attempt, and an attempt is a load."""
    program.script(noise=0.01)
    for db in ("a.db", "b.db"):
        for repeats in (3, 5):
            program("run", program.grid("grid", repeats=repeats), "--db", db).must()
    found = json_of(program("compare", "a.db", "b.db", "--json"))
    (part,) = found["parts"]
    assert part["loads_known"]
    assert {(cell["a"]["loads"], cell["b"]["loads"]) for cell in part["cells"]} == {(2, 2)}


def test_the_tasks_of_a_sweep_are_compared_each_by_its_own_metric(program: Program) -> None:
    asked = [
        {"id": f"q{n}", "prompt": f"say {n:03}", "category": "all", "expect": {"facts": ["yes"]}} for n in range(60)
    ]
    keys = {
        "task": ["prompt_eval", "items"],
        "tasks": program.asks(*asked),
        "num_ctx": [512],
        "num_batch": [2],
    }
    for db, wrong in (("a.db", 5), ("b.db", 50)):
        answers = {f"say {n:03}": "no" for n in range(wrong)}
        program.script(answers={**answers, "say": "yes"})
        program("run", program.grid("grid", **keys), "--db", db).must()
    found = json_of(program("compare", "a.db", "b.db", "--json"))
    assert [(part["task"], part["metric"]) for part in found["parts"]] == [
        ("prompt_eval", "prompt_eval_rate"), ("items", "quality"),
    ]  # fmt: skip
    assert [part["over_all"]["verdict"] for part in found["parts"]] == ["cannot tell", "worse"]
    (cell,) = found["parts"][1]["cells"]
    assert (cell["a"]["value"], cell["b"]["value"]) == (pytest.approx(55 / 60), pytest.approx(10 / 60))
    speed = json_of(program("compare", "a.db", "b.db", "--metric", "latency_s", "--json"))
    assert {part["metric"] for part in speed["parts"]} == {"latency_s"}
    program("compare", "a.db", "b.db", "--fail-over", "5%").must(7)


def test_a_database_of_an_older_version_is_compared_as_it_is(program: Program) -> None:
    path = lay_out(program.folder)
    before = path.read_bytes()
    text = program("compare", "speed@1", "speed@2").must().stdout
    assert "the surroundings differ: engine_version 1.0 -> 1.1" in text
    for other in ("tasks", "settings", "old", "shared", "ollama_http", "openai"):
        ended = program("compare", "speed", other, "--allow", "model,prompt,task,engine")
        assert ended.returncode in (0, 2), ended.stderr
        assert ended.stderr.count("\n") <= 1
    shutil_copy = program.folder / "copy.db"
    shutil_copy.write_bytes(before)
    for name in (
        "tasks",
        "settings",
        "ollama",
        "ollama_http",
        "openai",
        "lmstudio",
        "llamacpp",
        "sentence_transformers",
    ):
        found = json_of(program("compare", name, f"copy.db:{name}", "--json"))
        assert all(cell["ratio"] in (None, pytest.approx(1.0)) for part in found["parts"] for cell in part["cells"])
    assert path.read_bytes() == before


# -- the picture -------------------------------------------------------------------------------------------------------


def test_the_map_of_ratios_says_what_the_table_says(told: Program) -> None:
    ended = told("compare", "before", "after@1", "--db", "a.db", "--picture", "ratio.png").must()
    assert ended.stdout.splitlines()[-1] == "ratio.png"
    with Image.open(told.folder / "ratio.png") as image:
        assert image.size == (3000, 900)
    refused_plot = told("plot", "ratio", "after", "--db", "a.db").must(2)
    assert "ratio draws a comparison: ollama-sweep compare A B --picture FILE" in refused_plot.stderr


def test_what_the_map_collects(made: Path) -> None:
    found = compare("before", "after@1", db=made / "a.db")
    ratio = plots.load("ratio")
    (data,) = ratio.collect(found.parts, plots.PlotOptions(sweep="after against before"))
    assert data.title == "Prompt processing speed, B over A: after against before"
    assert data.counts()["slower"] == 2
    marks = data.cells
    assert marks[1024, 512].word == "slower"
    assert marks[1024, 512].better < 0 < marks[2048, 512].better
    assert (marks[8192, 64].word, marks[8192, 64].better) == ("ok -> oom", None)
    assert marks[8192, 256].word == "left out: flagged"
    lower = compare("before", "after@1", db=made / "a.db", metric="prompt_eval_duration_s")
    (data,) = ratio.collect(lower.parts, plots.PlotOptions())
    assert data.cells[1024, 512].word == "slower"
    assert data.cells[1024, 512].better < 0


def test_a_sweep_with_several_maps_has_a_file_for_each(program: Program) -> None:
    for name, text in (("one", GRID["prompt"]["text"]), ("two", "six seven eight nine ten")):
        program("run", program.grid(name, prompt={"text": text}, num_gpu=[0, 1])).must()
    ended = program("compare", "one", "two", "--allow", "prompt", "--picture", "maps.svg").must()
    files = [line for line in ended.stdout.splitlines() if line.endswith(".svg")]
    assert files == ["maps_num_gpu-0_task-prompt_eval.svg", "maps_num_gpu-1_task-prompt_eval.svg"]
    assert all((program.folder / file).is_file() for file in files)
