"""Questions with four answers: files as they are found, letters, accuracy by subject."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as arrow
import pytest
from pyarrow import parquet
from task_making import (
    answer_of,
    only,
    run_of,
    runs_of,
    set_up,
)

from ollama_sweep import tasks
from ollama_sweep.core import stats
from ollama_sweep.core.errors import ConfigError

TEST_ROWS = [("What is 1 + 1?", ["1", "2", "3", "4"], 1), ("What is 2 + 2?", ["1", "2", "3", "4"], 3)]
DEV_ROWS = [(f"What is {number}?", ["w", "x", "y", "z"], number % 4) for number in range(5)]
Rows = Sequence[tuple[str, list[str], int]]


def write_parquet(path: Path, subject: str, rows: Rows) -> None:
    """A file as `cais/mmlu` has them: the answer is the place of the right choice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "question": [question for question, _, _ in rows],
        "subject": [subject] * len(rows),
        "choices": [choices for _, choices, _ in rows],
        "answer": [answer for _, _, answer in rows],
    }
    parquet.write_table(arrow.table(columns), path)


def write_csv(path: Path, rows: Rows) -> None:
    """A file as the original evaluation has them: no header, the answer is a letter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join([question, *choices, "ABCD"[answer]]) for question, choices, answer in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def hub_layout(folder: Path) -> Path:
    for subject in ("abstract_algebra", "anatomy"):
        write_parquet(folder / subject / "test-00000-of-00001.parquet", subject, TEST_ROWS)
        write_parquet(folder / subject / "dev-00000-of-00001.parquet", subject, DEV_ROWS)
    return folder


def original_layout(folder: Path) -> Path:
    for subject in ("abstract_algebra", "anatomy"):
        write_csv(folder / "data" / "test" / f"{subject}_test.csv", TEST_ROWS)
        write_csv(folder / "data" / "dev" / f"{subject}_dev.csv", DEV_ROWS)
    return folder


LAYOUTS = {"hub": hub_layout, "original": original_layout}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@each_layout
def test_the_real_layouts_give_the_same_questions(layout: str, tmp_path: Path) -> None:
    folder = LAYOUTS[layout](tmp_path)
    setup = only("mmlu", f"data: {folder}\nshots: 1\n")
    assert [question.id for question in setup.questions] == ["abstract_algebra/0", "abstract_algebra/1"]
    assert setup.questions[0].text == (
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
        "What is 0?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\n"
        "What is 1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    )
    assert [question.expected["answer"] for question in setup.questions] == ["B", "D"]
    assert dict(setup.options) == {"shots": 1, "split": "test", "subjects": "abstract_algebra"}
    assert (setup.repeats, setup.defaults["temperature"]) == (1, 0)


@each_layout
def test_subjects_limit_and_shots_of_mmlu(layout: str, tmp_path: Path) -> None:
    folder = LAYOUTS[layout](tmp_path)
    setup = only("mmlu", f"data: {folder}\nsubjects: [anatomy, abstract_algebra]\nlimit: 1\nshots: 5")
    assert [question.id for question in setup.questions] == ["anatomy/0", "abstract_algebra/0"]
    assert all(question.text.count("Answer:") == 6 for question in setup.questions)
    assert len(only("mmlu", f"data: {folder}\nsubjects: all").questions) == 4
    assert len(only("mmlu", f"data: {folder}\nsplit: dev").questions) == 5
    hashes = {only("mmlu", f"data: {folder}\nshots: {shots}").hash for shots in range(6)}
    assert len(hashes) == 6


def test_one_file_is_enough_and_finds_its_examples(tmp_path: Path) -> None:
    original_layout(tmp_path)
    setup = only("mmlu", f"data: {tmp_path}/data/test/anatomy_test.csv\nshots: 2")
    assert dict(setup.options)["subjects"] == "anatomy"
    write_parquet(tmp_path / "one.parquet", "virology", TEST_ROWS)
    assert only("mmlu", f"data: {tmp_path}/one.parquet").questions[0].id == "virology/0"


def test_the_folder_all_is_not_counted_twice(tmp_path: Path) -> None:
    hub_layout(tmp_path)
    for subject in ("abstract_algebra", "anatomy"):
        write_parquet(tmp_path / "all" / "test-00000-of-00001.parquet", subject, TEST_ROWS * 3)
    assert len(only("mmlu", f"data: {tmp_path}\nsubjects: all").questions) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: FOLDER\nsubjects: anatomi", r"there is no subject anatomi; there are .*Did you mean anatomy\?"),
        ("data: FOLDER\nsubjects: [anatomy, anatomy]", "anatomy is given twice"),
        ("data: FOLDER\nsubjects: []", "the list is empty"),
        ("data: FOLDER\nshots: 6", "shots: 6 is outside 0 to 5"),
        ("data: FOLDER\nsplit: train", r'split: "train" is not one of test, validation, dev'),
        ("data: FOLDER\nsplit: validation", "has no validation questions; a folder holds SUBJECT_test.csv"),
        ("data: FOLDER\nsplit: dev\nshots: 1", "the examples of shots come from dev"),
        ("data: FOLDER/nothing", "file not found"),
        ("shots: 1", "mmlu needs data: PATH of a file or folder of MMLU, or datasets: cais/mmlu"),
        ("datasets: cais/mmlu", "may have to be downloaded; allow it with download: true, or give data: PATH"),
        ("datasets: cais/mmlu\ndata: FOLDER\ndownload: true", "give data: PATH or datasets: NAME, not both"),
        ("data: FOLDER\ndownload: true", "is for datasets: NAME, which is not given"),
    ],
)
def test_what_mmlu_refuses(text: str, message: str, tmp_path: Path) -> None:
    hub_layout(tmp_path)
    with pytest.raises(ConfigError, match=r"^grid\.yaml:\d: .*" + message):
        only("mmlu", text.replace("FOLDER", str(tmp_path)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("What?,1,2,3,4,E", r"answer: 'E' must be one of A, B, C, D"),
        ("What?,1,2,3,4,1", r"answer: '1' must be one of A, B, C, D"),
        ("What?,1,A", "has 3 columns; a row is question, choices"),
        (",1,2,3,4,A", "question: is empty"),
    ],
)
def test_a_bad_row_of_mmlu_is_named(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "algebra_test.csv"
    path.write_text(f"Fine?,1,2,3,4,A\n{row}\n", "utf-8")
    with pytest.raises(ConfigError, match=rf"^{path}:2: {message}"):
        only("mmlu", f"data: {path}")


def test_a_bad_row_of_parquet_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test.parquet", "x", [("Fine?", ["1", "2"], 1), ("Bad?", ["1", "2"], 2)])
    with pytest.raises(ConfigError, match=r"test\.parquet: row 2: answer: 2 must be a number from 0 or one of A, B"):
        only("mmlu", f"data: {tmp_path}")
    parquet.write_table(arrow.table({"question": ["What?"]}), tmp_path / "test.parquet")
    with pytest.raises(ConfigError, match="row 1: choices: must be a list of texts"):
        only("mmlu", f"data: {tmp_path}")


def test_accuracy_counts_what_was_answered_and_unread_letters_as_wrong() -> None:
    setup, task = set_up("mmlu"), tasks.load("mmlu")
    right, wrong = setup.questions[0].expected["answer"], "A" if setup.questions[1].expected["answer"] != "A" else "B"
    answers = [answer_of(f"The answer is {right}"), answer_of(wrong), answer_of("I do not know"), None]
    summary = task.summarize(runs_of("mmlu", setup, answers))
    assert math.isclose(summary["accuracy"], 1 / 3)
    assert math.isclose(summary["letter_failure_rate"], 1 / 3)
    assert (summary["accuracy_low"], summary["accuracy_high"]) == stats.wilson(1 / 3, 3)


def test_a_question_asked_again_makes_the_interval_no_narrower() -> None:
    setup, task = set_up("mmlu"), tasks.load("mmlu")
    runs = runs_of("mmlu", setup, [answer_of("A")] * 8)
    once, thrice = task.summarize(runs), task.summarize(runs * 3)
    assert (once["accuracy_low"], once["accuracy_high"]) == (thrice["accuracy_low"], thrice["accuracy_high"])


def test_mmlu_says_the_accuracy_of_each_subject() -> None:
    setup, task = set_up("mmlu"), tasks.load("mmlu")
    runs = [run_of(task, one, answer_of(str(one.expected["answer"]))) for one in setup.questions]
    summary = task.summarize(runs)
    assert summary["accuracy_sample_arithmetic"] == summary["accuracy_sample_nature"] == summary["accuracy"] == 1


FRANCE = "What is the capital of France?"
CITIES = ["London", "Paris", "Rome", "Oslo"]
SIMPLE_EVALS = ",Question,A,B,C,D,Answer,Subject\n0,What is the capital of France?,London,Paris,Rome,Oslo,B,geography\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mmlu.csv", SIMPLE_EVALS),
        ("b.csv", "id,prompt,A,B,C,D,answer\n1,What is the capital of France?,London,Paris,Rome,Oslo,b\n"),
        (
            "c.csv",
            f"Question,Choices,Answer\n{FRANCE},\"['London', 'Paris', 'Rome', 'Oslo']\",1\nTwo?,\"['x', 'y']\",0\n",
        ),
        ("d.csv", f"question,option1,option2,option3,option4,answer\n{FRANCE},London,Paris,Rome,Oslo,Paris\n"),
        ("e_test.csv", f"{FRANCE},London,Paris,Rome,Oslo,b\n"),
        ("f_test.csv", f"{FRANCE},London,Paris,Rome,Oslo,1\nTwo?,x,y,z,w,0\n"),
        ("g_test.csv", f"{FRANCE},London,Paris,Rome,Oslo,2\nTwo?,x,y,z,w,4\n"),
        ("h_test.csv", f"{FRANCE},London,Paris,Rome,Oslo,(B)\n"),
    ],
)
def test_tables_of_multiple_choice_are_read(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    (first, *_) = only("mmlu", f"data: {path}").questions
    assert first.text.endswith(f"{FRANCE}\nA. London\nB. Paris\nC. Rome\nD. Oslo\nAnswer:")
    assert first.expected == {"answer": "B", "choices": CITIES}
    assert first.category == ("geography" if "Subject" in text else path.stem.removesuffix("_test"))


@pytest.mark.parametrize(
    "fields",
    [
        {"options": CITIES, "answer": "B", "answer_index": 1, "category": "geography", "src": "x", "cot_content": ""},
        {"options": CITIES, "answer_index": 1},
        {"options": {"A": "London", "B": "Paris", "C": "Rome", "D": "Oslo"}, "answer_idx": "B", "answer": "Paris"},
        {"choices": {"text": CITIES, "label": ["A", "B", "C", "D"]}, "answerKey": "B"},
        {"choices": CITIES, "answer": "b"},
        {"choices": CITIES, "answer": 1},
        {"A": "London", "B": "Paris", "C": "Rome", "D": "Oslo", "Answer": "B"},
        {"choice_a": "London", "choice_b": "Paris", "choice_c": "Rome", "choice_d": "Oslo", "target": "Paris"},
    ],
)
def test_rows_of_multiple_choice_are_read(fields: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "geography.jsonl"
    path.write_text(json.dumps({"question": FRANCE, **fields}) + "\n", "utf-8")
    (first,) = only("mmlu", f"data: {path}").questions
    assert (first.expected, first.category) == ({"answer": "B", "choices": CITIES}, "geography")
    table = tmp_path / "test.parquet"
    parquet.write_table(arrow.table({name: [value] for name, value in {"question": FRANCE, **fields}.items()}), table)
    (again,) = only("mmlu", f"data: {table}").questions
    assert again.expected == first.expected


def test_ten_choices_have_ten_letters(tmp_path: Path) -> None:
    path = tmp_path / "math.jsonl"
    path.write_text(
        json.dumps({"question": "?", "options": list("klmnopqrst"), "answer": "J", "answer_index": 9}) + "\n"
    )
    (first,) = only("mmlu", f"data: {path}").questions
    assert (first.expected["answer"], "\nJ. t\n" in first.text) == ("J", True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a_test.csv", "What?,w,x,y,z,1\nTwo?,w,x,y,z,2\n",
         r"a_test\.csv:1: answer: '1' must be one of A, B, C, D \(numbers must stand in every row, and one"),
        ("a_test.csv", "What?,w,x,y,z,0\nTwo?,w,x,y,z,4\n", r"a_test\.csv:2: answer: '4' must be one of A, B, C, D"),
        ("a.jsonl", '{"question": "?", "options": ["x", "y"], "answer": "A", "answer_index": 1}',
         r"a\.jsonl:1: answer A and answer_index 1 are two different answers"),
        ("a.jsonl", '{"question": "?", "answer": "A"}',
         r"a\.jsonl:1: choices: must be a list of texts; a row has question, choices or options \(a list\) or"),
        ("a.jsonl", '{"question": "?", "options": ["x", "y"]}', r"a\.jsonl:1: answer is missing; a row has"),
        ("a.jsonl", '{"question": "?", "options": ["x"], "answer": "A"}', "has 1 choices; 2 to 10 are possible"),
        ("a.csv", "Question,A,B,Answer\n?,x,y\n", r"a\.csv:2: has 3 columns; the header has 4"),
        ("a.csv", "Question,A,B,Answer\n,x,y,A\n", r"a\.csv:2: question: is empty"),
        ("a.csv", "Question,A,B,Answer\n", r"a\.csv: has no questions"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        only("mmlu", f"data: {path}")
