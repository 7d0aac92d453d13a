"""The files of MMLU: parquet as in `cais/mmlu`, or the original CSV files without a header, in a folder or one file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line
from ollama_sweep.tasks.shared.data import Record, read_records, read_table
from ollama_sweep.tasks.shared.scorers import LETTERS

SPLITS = ("test", "validation", "dev")
COLUMNS = ("question", "subject", "choices", "answer")
LAYOUT = (
    "a folder holds SUBJECT_test.csv (also in test/ and dev/) or test-*.parquet (also in a folder for each subject)"
)
_CSV = re.compile(r"(?P<subject>.+)_(?P<split>test|dev|val|validation)\.csv", re.IGNORECASE)
_PARQUET = re.compile(r"(?P<split>test|dev|validation|val)(?:-\d+-of-\d+)?\.parquet", re.IGNORECASE)
_MOST_FILES = 20_000


@dataclass(frozen=True)
class Item:
    """One question with its choices; `answer` is the right letter."""

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: str

    def text(self, *, with_answer: bool = False) -> str:
        """The question as it is asked: the choices with their letters, then `Answer:`."""
        listed = "".join(f"\n{mark}. {choice}" for mark, choice in zip(LETTERS, self.choices, strict=False))
        return f"{self.question}{listed}\nAnswer:" + (f" {self.answer}\n\n" if with_answer else "")


def read(path: Path, split: str, asked: Node | None) -> list[Item]:
    """The questions of a split, of one file or of all files of a folder. Raises ConfigError."""
    if not path.is_dir():
        return list(_of_file(path, asked))
    files = _files([path, *_below(path)], split)
    if not files:
        raise _at(path, f"has no {split} questions; {LAYOUT}", asked)
    return [item for file in files for item in _of_file(file, asked)]


def read_dev(path: Path, asked: Node | None) -> list[Item]:
    """The questions that examples come from: those of `dev` in the folder, or beside a file. Raises ConfigError."""
    if path.is_dir():
        return read(path, "dev", asked)
    beside = [path.parent, path.parent / "dev", path.parent.parent / "dev"]
    files = _files([folder for folder in beside if folder.is_dir()], "dev")
    if not files:
        raise _at(path, "shots need dev questions beside the file: SUBJECT_dev.csv or dev-*.parquet", asked)
    return [item for file in files for item in _of_file(file, asked)]


def of_records(records: Iterable[Record], subject: str) -> Iterator[Item]:
    """The questions of rows as `cais/mmlu` has them; `subject` where a row names none. Raises ConfigError."""
    for record in records:
        choices = record.fields.get("choices")
        if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
            raise record.error("choices: must be a list of texts", "choices")
        letters = _letters(record, choices)
        answer = record.fields.get("answer")
        if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(letters):
            answer = letters[answer]
        own = record.optional_text("subject") or subject
        yield Item(
            own, record.text("question"), tuple(choices), _answer(record, answer, letters, "a number from 0 or ")
        )


def _below(folder: Path) -> list[Path]:
    """The folders inside, two levels deep; where there is one named `all`, it has the questions of all others."""
    found = [path for level in ("*", "*/*") for path in islice(folder.glob(level), _MOST_FILES) if path.is_dir()]
    every = [path for path in found if path.name == "all" and _files([path], "test")]
    return every or sorted(found)


def _files(folders: Sequence[Path], split: str) -> list[Path]:
    names = {"validation", "val"} if split == "validation" else {split}
    found: dict[Path, None] = {}
    for folder in folders:
        for path in sorted(islice(folder.iterdir(), _MOST_FILES)):
            match = _CSV.fullmatch(path.name) or _PARQUET.fullmatch(path.name)
            if match and match["split"].lower() in names:
                found.setdefault(path.resolve(), None)
    return list(found)


def _of_file(path: Path, asked: Node | None) -> Iterator[Item]:
    match = _CSV.fullmatch(path.name)
    subject = match["subject"] if match else path.parent.name if _PARQUET.fullmatch(path.name) else path.stem
    if path.suffix.lower() != ".csv":
        yield from of_records(read_records(path, asked, COLUMNS), subject)
        return
    rows = read_table(path, asked)
    if rows and rows[0][0][0].strip().lower() == "question" and rows[0][0][-1].strip().lower() == "answer":
        rows = rows[1:]
    if not rows:
        raise _at(path, "has no questions", asked)
    for row, place in rows:
        yield _of_row(row, Record(_named(row), place), subject)


def _named(row: Sequence[str]) -> Mapping[str, object]:
    return {"question": row[0], "answer": row[-1]}


def _of_row(row: Sequence[str], record: Record, subject: str) -> Item:
    if len(row) < 4:
        raise record.error(f"has {len(row)} columns; a row is question, choices (two or more), the right letter")
    choices = row[1:-1]
    return Item(
        subject, record.text("question"), tuple(choices), _answer(record, row[-1].strip(), _letters(record, choices))
    )


def _letters(record: Record, choices: Sequence[str]) -> str:
    if not 2 <= len(choices) <= len(LETTERS):
        raise record.error(f"has {len(choices)} choices; 2 to {len(LETTERS)} are possible", "choices")
    return LETTERS[: len(choices)]


def _answer(record: Record, answer: object, letters: str, also: str = "") -> str:
    if not isinstance(answer, str) or len(answer) != 1 or answer not in letters:
        raise record.error(f"answer: {one_line(repr(answer))} must be {also}one of {', '.join(letters)}", "answer")
    return answer


def _at(path: Path, what: str, asked: Node | None) -> ConfigError:
    return asked.error(f"{path}: {what}") if asked else ConfigError(what, str(path))
