"""Data that people know under its own form: tables without ids, and rows that the package `datasets` gives."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.strict_yaml import parse
from ollama_sweep.plan import setups
from ollama_sweep.tasks.base import Setup
from ollama_sweep.tasks.shared import data

AWESOME = """act,prompt,for_devs,type,contributor
"An Ethereum Developer","Imagine you are an experienced developer.
Write a contract.",TRUE,TEXT,f
Linux Terminal,I want you to act as a linux terminal.,TRUE,TEXT,f
"English Translator","I want you to act as a translator.",FALSE,TEXT,f
"Job Interviewer","I want you to act as an interviewer.",FALSE,TEXT,f
"""
ASSISTANT = "You are a helpful assistant."
FAST = "HF_HUB_ENABLE_HF_TRANSFER"
DATASETS = """
import os
FAST_AT_IMPORT = os.environ.get("HF_HUB_ENABLE_HF_TRANSFER")
def disable_progress_bars(): pass
def load_dataset(name, configuration, split):
    with open("asked", "a") as journal: journal.write(f"{name} {configuration} {split} {FAST_AT_IMPORT}\\n")
    if name == "empty": return []
    count = int(split.partition("[:")[2].rstrip("]"))
    if name == "stanfordnlp/imdb": return [{"text": f"review {number}", "label": 0} for number in range(count)]
    return [{"act": f"Act {number}", "prompt": f"prompt {number}", "for_devs": True} for number in range(count)]
"""


def set_up(task: str, text: str = "") -> Setup:
    """A task's setup with these options, as they stand in a sweep file."""
    node = parse(text, "grid.yaml")
    given = node.value if node is not None else {}
    assert isinstance(given, dict)
    return setups.set_up([task], {task: given})[task]


def ids(setup: Setup) -> list[str]:
    return [question.id for question in setup.questions]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FAST, "put back afterwards, whatever happens to it")
    monkeypatch.delenv(FAST)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `datasets` that writes down what it is asked."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "datasets.py").write_text(DATASETS, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "package"))
    monkeypatch.delitem(sys.modules, "datasets", raising=False)


def asked() -> list[str]:
    return Path("asked").read_text("utf-8").splitlines()


# -- files without ids -----------------------------------------------------------------------------------------------


def test_chat_takes_the_awesome_prompts_as_they_are() -> None:
    Path("prompts.csv").write_text(AWESOME, "utf-8")
    setup = set_up("chat", "data: prompts.csv\nlimit: 3")
    assert ids(setup) == ["An Ethereum Developer", "Linux Terminal", "English Translator"]
    Path("prompts.csv").write_text(AWESOME.replace("Linux Terminal", '"Linux\n  Terminal"'), "utf-8")
    assert ids(set_up("chat", "data: prompts.csv"))[1] == "Linux Terminal", "an id is one line"
    assert setup.questions[0].text.endswith("Write a contract.")
    assert setup.system == ASSISTANT
    assert set_up("chat", "data: prompts.csv\nsystem: Be brief.").system == "Be brief."


def test_where_two_acts_are_the_same_the_lines_are_the_ids() -> None:
    Path("prompts.csv").write_text(AWESOME.replace("English Translator", "Linux Terminal"), "utf-8")
    assert ids(set_up("chat", "data: prompts.csv")) == ["2", "4", "5", "6"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json"])
def test_a_file_without_ids_has_its_lines_or_items_for_ids(name: str) -> None:
    rows = [{"category": "a", "prompt": "one"}, {"category": "a", "prompt": "two"}]
    texts = {
        "rows.csv": "category,prompt\na,one\na,two\n",
        "rows.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
        "rows.json": json.dumps(rows),
    }
    Path(name).write_text(texts[name], "utf-8")
    expected = ["2", "3"] if name == "rows.csv" else ["1", "2"]
    assert ids(set_up("items", f"data: {name}")) == expected
    assert [dict(record.fields) for record in data.read_records(Path(name))] == rows, "nothing is added"


def test_where_only_some_have_an_id_the_others_lack_it() -> None:
    Path("rows.jsonl").write_text('{"prompt": "one"}\n{"id": "b", "prompt": "two"}\n', "utf-8")
    with pytest.raises(ConfigError, match=r"^rows\.jsonl:1: id is missing; the item has prompt"):
        set_up("chat", "data: rows.jsonl")


def test_an_empty_id_and_a_prompt_set_without_ids_are_mistakes() -> None:
    Path("rows.csv").write_text("id,prompt\na,one\n,two\n", "utf-8")
    with pytest.raises(ConfigError, match=r"^rows\.csv:3: id: is empty"):
        set_up("chat", "data: rows.csv")
    Path("rows.yaml").write_text("version: 1\nprompts:\n  - prompt: one\n", "utf-8")
    with pytest.raises(ConfigError, match=r"^rows\.yaml:3: id is missing"):
        set_up("chat", "data: rows.yaml")


def test_a_prompt_set_says_itself_whether_it_has_a_system_prompt() -> None:
    Path("rows.yaml").write_text("version: 1\nprompts:\n  - {id: a, prompt: one}\n", "utf-8")
    assert set_up("chat", "data: rows.yaml").system == ""
    assert set_up("chat").system == ASSISTANT


# -- datasets --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("package")
def test_chat_asks_the_first_three_prompts_of_a_dataset() -> None:
    setup = set_up("chat", "datasets: fka/awesome-chatgpt-prompts\ndownload: true")
    assert ids(setup) == ["Act 0", "Act 1", "Act 2"]
    assert (setup.questions[2].text, setup.system) == ("prompt 2", ASSISTANT)
    assert len(set_up("chat", "datasets: x/y\ndownload: true\nlimit: 5\nsplit: test").questions) == 5
    assert asked() == ["fka/awesome-chatgpt-prompts None train[:3] None", "x/y None test[:5] None"]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: a/b", r"grid\.yaml:1: tasks\.chat\.datasets: a/b may have to be downloaded; allow it with"),
        ("datasets: a/b\ndownload: true\ndata: x.csv", r"grid\.yaml:1: tasks\.chat: give data: PATH or datasets: NAME"),
        ("split: test", r"grid\.yaml:1: tasks\.chat\.split: is for datasets: NAME, which is not given"),
        ("datasets: empty\ndownload: true", r"grid\.yaml:1: tasks\.chat\.datasets: .*empty.* has no rows in train"),
        ("datasets: stanfordnlp/imdb\ndownload: true", r"^stanfordnlp/imdb train\[:3\]: row 1: unknown field text"),
    ],
)
def test_what_chat_refuses_of_datasets(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        set_up("chat", text)


@pytest.mark.usefixtures("package")
def test_embeddings_take_the_first_hundred_reviews() -> None:
    setup = set_up("embeddings", "datasets: stanfordnlp/imdb\ndownload: true")
    assert (len(setup.questions[0].texts), setup.questions[0].texts[99]) == (100, "review 99")
    assert asked() == ["stanfordnlp/imdb None train[:100] None"]


def test_embeddings_take_reviews_from_a_table_of_ones_own() -> None:
    Path("imdb.csv").write_text('review,sentiment\n"Good, very good",positive\nBad,negative\n', "utf-8")
    setup = set_up("embeddings", "data: imdb.csv\ncolumn: review")
    assert setup.questions[0].texts == ("Good, very good", "Bad")


# -- HF_HUB_ENABLE_HF_TRANSFER ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("package")
def test_fast_downloads_are_taken_from_the_env_file_before_the_package_is_imported() -> None:
    Path(".env").write_text(f"{FAST}=1\n", "utf-8")
    set_up("chat", "datasets: a/b\ndownload: true")
    assert asked() == ["a/b None train[:3] 1"]


@pytest.mark.usefixtures("package")
def test_the_environment_wins_over_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(f"{FAST}=1\n", "utf-8")
    monkeypatch.setenv(FAST, "0")
    set_up("chat", "datasets: a/b\ndownload: true")
    assert asked() == ["a/b None train[:3] 0"]


@pytest.mark.usefixtures("package")
def test_an_env_file_that_nothing_here_can_read_does_not_keep_data_away(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(f"{FAST}=1\n", "utf-8")
    monkeypatch.setitem(sys.modules, "dotenv", None)
    set_up("chat", "datasets: a/b\ndownload: true")
    assert asked() == ["a/b None train[:3] None"]
    assert FAST not in os.environ
