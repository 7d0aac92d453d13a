"""`verify` makes every number again: what was changed is found and named, and an older rule is known by its name."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from store_helpers import stranger
from sweeping import Program, json_of, program  # noqa: F401 - the fixture is asked for by its name

from ollama_sweep import engines
from ollama_sweep.core.outcome import Run, Status
from ollama_sweep.engines.base import Kept
from ollama_sweep.results.numbers import again, older
from ollama_sweep.results.numbers.check import CORRECTED, Differing, Numbers
from ollama_sweep.results.numbers.tally import Tally
from ollama_sweep.store import checksum
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import StoredAttempt

ITEMS = (
    {"id": "bread", "category": "Kitchen", "prompt": "Say how bread is made.", "expect": {"max_words": 5}},
    {"id": "moss", "category": "Forest", "prompt": "On which side grows moss?", "expect": {"facts": ["north"]}},
)
ASKED = "(SELECT min(attempts.id) FROM attempts JOIN cells ON cells.id = cell_id WHERE task = 'items')"
"""The first attempt with questions."""


def read(engine: str, raw: str, version: str, *, fresh: bool, embeds: bool) -> Mapping[str, float | None]:
    return engines.reader(engine)(Kept(raw, version, fresh=fresh, embeds=embeds))


def numbers_of(path: Path) -> tuple[Numbers, list[Differing]]:
    with Reader.open(path) as reader:
        found = Numbers(reader, read)
        return found, list(found.differing())


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two cells with two tasks, measured in two passes, with control measurements."""
    made = Program(tmp_path_factory.mktemp("numbers"))
    made.script(noise=0.02, thoughts={"moss": "Let me think."}, answers={"bread": "Flour and heat."})
    config = made.grid(num_ctx=[512], task=["prompt_eval", "items"], tasks=made.asks(*ITEMS, repeats=2),
                       repeats=3, passes=2, control=1,
                       num_predict=4, second_look="off", interim="off")  # fmt: skip
    made("run", config).must()
    yield made.folder / "sweeps.db"
    made.close()


def test_what_was_measured_agrees(database: Path) -> None:
    found, differing = numbers_of(database)
    assert differing == []
    assert found.tally.agrees > 500
    assert found.tally.older.total() == 0
    assert set(+found.tally.cannot) <= {again.NOT_EXPECTED, CORRECTED}


def packed(old: str, new: str) -> str:
    """SQL that changes a raw output; `replaced` is the connection's function."""
    return (
        f"UPDATE raw_outputs SET content = replaced(content, '{old}', '{new}') WHERE part = 'run 2' AND attempt_id = 1"
    )


RUN = "WHERE attempt_id = 1 AND part = 'run 2'"
CHANGES = (
    (f"UPDATE runs SET prompt_eval_rate = prompt_eval_rate * 1.01 {RUN}", "run 2", "prompt_eval_rate"),
    (f"UPDATE runs SET prompt_eval_rate = NULL {RUN}", "run 2", "prompt_eval_rate"),
    (f"UPDATE runs SET prompt_eval_count = prompt_eval_count + 1 {RUN}", "run 2", "prompt_eval_count"),
    (f"UPDATE runs SET prompt_eval_count = NULL {RUN}", "run 2", "prompt_eval_count"),
    (f"UPDATE runs SET cached_count = 1 {RUN}", "run 2", "cached_count"),
    (f"UPDATE runs SET eval_duration_s = eval_duration_s / 2 {RUN}", "run 2", "eval_duration_s"),
    (f"UPDATE runs SET eval_rate = 1000 {RUN}", "run 2", "eval_rate"),
    (f"UPDATE runs SET load_duration_s = 1.5 {RUN}", "run 2", "load_duration_s"),
    (f"UPDATE runs SET believed = 0, doubt = 'cached' {RUN}", "run 2", "believed"),
    ("UPDATE runs SET prompt_eval_rate = 1 WHERE attempt_id = 1 AND part = 'warmup 1'", "warmup 1", "prompt_eval_rate"),
    ("UPDATE attempts SET prompt_eval_rate = prompt_eval_rate * 1.0001 WHERE id = 1", "attempt", "prompt_eval_rate"),
    ("UPDATE attempts SET eval_rate = 99 WHERE id = 1", "attempt", "eval_rate"),
    ("UPDATE attempts SET prompt_eval_rate_max = 1e6 WHERE id = 1", "attempt", "prompt_eval_rate_max"),
    ("UPDATE attempts SET runs = runs + 1 WHERE id = 1", "attempt", "runs"),
    ("UPDATE attempts SET scores = json_set(scores, '$.task_score', 1) WHERE id = 1", "attempt", "task_score"),
    ("UPDATE attempts SET scores = json_set(scores, '$.quality', 1) WHERE id = 1", "attempt", "quality"),
    ("UPDATE attempts SET scores = json_set(scores, '$.quality', 0.99) WHERE id = @ASKED", "attempt", "quality"),
    ("UPDATE attempts SET scores = json_remove(scores, '$.ttft_s') WHERE id = @ASKED", "attempt", "ttft_s"),
    ("UPDATE scores SET value = 7 WHERE attempt_id = @ASKED AND part = 'attempt' AND name = 'quality'", "attempt",
     "quality of the table scores"),
    ("UPDATE scores SET value = 7 WHERE attempt_id = @ASKED AND part = 'run 1' AND name = 'tokens_per_s'", "run 1",
     "tokens_per_s"),
    (packed('"prompt_eval_count": 9', '"prompt_eval_count": 19'), "run 2", "prompt_eval_count"),
    ("UPDATE raw_outputs SET content = packed('nonsense') WHERE attempt_id = 1 AND part = 'run 2'", "run 2",
     "the raw output"),
    ("UPDATE load_values SET log_median = log_median + 0.1 WHERE attempt_id = 1", "attempt",
     "log_median of its load's prompt_eval_rate"),
    ("UPDATE spreads SET loads_spread = 0.5 WHERE metric = 'prompt_eval_rate'", "prompt_eval_rate of segment 1",
     "loads_spread"),
    ("UPDATE spreads SET runs_squares = runs_squares * 2 WHERE metric = 'prompt_eval_rate'",
     "prompt_eval_rate of segment 1", "runs_squares"),
    ("UPDATE intervals SET factor = 1.5 WHERE metric = 'prompt_eval_rate' AND loads = 2",
     "prompt_eval_rate of segment 1", "factor of the interval of 2 loads with 6 runs"),
    ("UPDATE controls SET drift = drift + 0.2 WHERE id = 2", "control at", "drift"),
    ("UPDATE controls SET prompt_eval_rate = 1, drift = 0 WHERE id = 2", "control at", "prompt_eval_rate"),
)  # fmt: skip


def replaced(content: bytes, old: str, new: str) -> bytes:
    text = zlib.decompress(content).decode()
    assert old in text
    return zlib.compress(text.replace(old, new).encode())


def test_every_changed_number_is_found_and_named(database: Path, tmp_path: Path) -> None:
    """Also where its checksum was made again, as in every second case."""
    missed = []
    for at, (sql, part, name) in enumerate(CHANGES):
        path = Path(shutil.copy(database, tmp_path / "changed.db"))
        with stranger(path) as connection:
            connection.create_function("replaced", 3, replaced)
            connection.create_function("packed", 1, lambda text: zlib.compress(text.encode()))
            connection.execute(sql.replace("@ASKED", ASKED))
            if at % 2:
                for (attempt_id,) in connection.execute("SELECT attempt_id FROM checksums").fetchall():
                    checksum.seal(connection, attempt_id)
        _, differing = numbers_of(path)
        named = [(number.part, number.name) for one in differing for number in one.numbers]
        if not any(found.startswith(part) and what == name for found, what in named):
            missed.append((sql, named))
    assert missed == []


def test_the_first_of_a_chain_is_blamed_and_not_what_was_made_of_it(database: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(database, tmp_path / "changed.db"))
    with stranger(path) as connection:
        connection.execute(f"UPDATE runs SET prompt_eval_count = 18 {RUN}")
    _, (one,) = numbers_of(path)
    assert [(number.part, number.name, number.stored, number.made) for number in one.numbers] == [
        ("run 2", "prompt_eval_count", 18, 9)
    ]
    place = "sweep grid: num_ctx 512, num_batch 2, task prompt_eval: attempt 1"
    assert one.words() == f"{place}: run 2: prompt_eval_count is 18, made again 9"


def test_the_command_says_it_and_ends_so(program: Program) -> None:  # noqa: F811
    config = program.grid(num_ctx=[512], num_batch=[2], control="off", repeats=2)
    program("run", config).must()
    assert re.search(
        r"(\d+) numbers of 1 attempts were made again: \1 agree\n$", program("verify", "--strict").must().stdout
    )
    found = json_of(program("verify", "--json"))["numbers"]
    assert found["agrees"] > 50
    assert (found["differs"], found["cannot"], found["older_rule"]) == (0, {}, {})
    with stranger(program.folder / "sweeps.db") as connection:
        connection.execute("UPDATE attempts SET eval_rate = 1")
        checksum.seal(connection, 1)
    ended = program("verify").must(4)
    assert "attempt 1: eval_rate is 1, made again 50\n" in ended.stdout
    assert ended.stderr == ("error: 1 number of sweeps.db cannot come of what the engine said and of the formulas\n")
    (one,) = json.loads(program("verify", "--json").must(4).stdout)["numbers"]["differing"]
    assert one["numbers"] == [{"part": "attempt", "name": "eval_rate", "stored": 1.0, "made": 50.0, "why": ""}]
    assert (one["sweep"], one["coordinates"], one["attempt"]) == ("grid", {"num_ctx": 512, "num_batch": 2}, 1)


def test_strict_is_about_cells_that_failed_or_carry_a_flag(program: Program) -> None:  # noqa: F811
    program.script(cells={"num_ctx 512, num_batch 2": ["oom"]})
    program("run", program.grid(num_batch=[2, 4096], control="off")).must()
    assert program("verify").must().stdout
    assert program("verify", "--strict").must(6).stderr == "error: 3 cells failed or carry a flag\n"


# -- one attempt, without a database ---------------------------------------------------------------------------------


def a_run(number: int, **changes: object) -> Run:
    plain = Run(number, False, str(number), 100, 0, 0.5, 200.0, 11, 0.1, 100.0, 0.7, 0.0, None, 0.8, True)
    return replace(plain, **changes)  # type: ignore[arg-type]


def attempt_of(*runs: Run, is_sealed: bool, **numbers: float | None) -> StoredAttempt:
    return StoredAttempt(1, 1, 1, Status.OK, "", "of another package", "", "prompt_eval", "c1:", is_sealed, numbers, {},
                         {}, runs, {run.part: "its own words" for run in runs}, {}, {})  # fmt: skip


def tally_of(attempt: StoredAttempt) -> Tally:
    return again.check(attempt, again.Sources(read, None, True, None, list))


def test_an_engine_that_reads_nothing_again_is_counted_and_not_blamed() -> None:
    found = tally_of(attempt_of(a_run(1), is_sealed=True))
    assert found.cannot == {again.NOT_SAID: 7}
    assert {number.part for number in found.differing} == {"attempt"}, "its summary is empty"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"eval_rate": 110.0}, older.ALL_TOKENS),
        ({"prompt_eval_rate": 200.0, "cached_count": 1}, older.WITH_CACHED),
        ({"believed": False, "doubt": "cached", "cached_count": 5, "prompt_eval_rate": 190.0}, older.ANY_CACHED),
    ],
)
def test_a_rate_by_an_older_rule_is_one_only_where_that_rule_was_in_use(change: dict[str, object], rule: str) -> None:
    run = a_run(1, **change)
    found = tally_of(attempt_of(run, is_sealed=False))
    assert found.older[rule] == 1
    assert not [number for number in found.differing if number.part == "run 1"]
    assert [number.name for number in tally_of(attempt_of(run, is_sealed=True)).differing if number.part == "run 1"]


def test_an_interval_by_order_is_older_than_loads() -> None:
    runs = tuple(a_run(number, prompt_eval_duration_s=100 / rate, prompt_eval_rate=rate)
                 for number, rate in enumerate((100.0, 101, 102, 103, 104, 105)))  # fmt: skip
    for loads, rules in ((None, {older.ORDER_STATISTICS: 2}), (1, {})):
        attempt = attempt_of(*runs, is_sealed=True, loads=loads)
        scores = {"prompt_eval_rate_low": 100.0, "prompt_eval_rate_high": 105.0}
        found = tally_of(replace(attempt, scores=scores, score_rows=scores))
        assert found.older == rules
        assert bool([number for number in found.differing if number.name.endswith("_low")]) is (loads == 1)
