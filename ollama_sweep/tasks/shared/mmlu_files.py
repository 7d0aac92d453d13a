"""Files of multiple choice: as in `cais/mmlu`, the original CSV without a header, and others that say it in a like way.

A question has its choices in one field (`choices`, `options`) or in columns of their own (`A`, `B` …), and its answer
as a letter, a number or the text of a choice. What can be read in two ways is refused.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line
from ollama_sweep.tasks.shared.data import Record, read_records, read_table
from ollama_sweep.tasks.shared.scorers import LETTERS

SPLITS = ("test", "validation", "dev")
QUESTION = ("question", "prompt", "input")
SUBJECT = ("subject", "category", "topic")
CHOICES = ("choices", "options")
ANSWER = ("answer", "answer_index", "answer_idx")
OTHER_ANSWERS = ("answerkey", "answer_key", "correct_answer", "correct", "target", "label")
_MARKS = (LETTERS.lower(), "123456789")
_OF_CHOICES = ("{}", "choice{}", "choice_{}", "choice {}", "option{}", "option_{}", "option {}")
"""The names of columns that hold a choice each."""
_NAMES = (*QUESTION, *SUBJECT, *CHOICES, *ANSWER, *OTHER_ANSWERS, "answerKey",
          *(form.format(mark) for marks in _MARKS for form in _OF_CHOICES for mark in marks))  # fmt: skip
COLUMNS = tuple(dict.fromkeys(form for name in _NAMES for form in (name, name.capitalize())))
FORMS = (
    "a row has question, choices or options (a list) or columns A, B, C …, and answer (a letter, or a number from 0) "
    "or answer_index"
)
LAYOUT = (
    "a folder holds SUBJECT_test.csv (also in test/ and dev/) or test-*.parquet (also in a folder for each subject)"
)
_CSV = re.compile(r"(?P<subject>.+)_(?P<split>test|dev|val|validation)\.csv", re.IGNORECASE)
_PARQUET = re.compile(r"(?P<split>test|dev|validation|val)(?:-\d+-of-\d+)?\.parquet", re.IGNORECASE)
_MOST_FILES = 20_000
Row = tuple[list[str], str]
"""The fields of a line of CSV, and where it stands."""


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
    """The questions of rows with named fields; `subject` where a row names none. Raises ConfigError."""
    rows = [(record, _lowered(record)) for record in records]
    every = [_choices(record, fields) for record, fields in rows]
    answers = [_first(fields, (*ANSWER, *OTHER_ANSWERS)) for _, fields in rows]
    first = _counts_from(answers, every)
    for (record, fields), choices in zip(rows, every, strict=True):
        own = _first(fields, SUBJECT)
        question = next((name for name in QUESTION if name in fields), "question")
        yield Item(
            own if isinstance(own, str) and own.strip() else subject,
            Record({question: fields.get(question), **fields}, record.where, record.lines).text(question),
            tuple(choices),
            _answer(record, fields, choices, first),
        )


def _lowered(record: Record) -> dict[str, object]:
    """The fields by their names in small letters; a column A is `a`."""
    return {name.strip().lower(): value for name, value in record.fields.items()}


def _first(fields: Mapping[str, object], names: Iterable[str]) -> object:
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)


def _choices(record: Record, fields: Mapping[str, object]) -> list[str]:
    """The choices in their order. Raises ConfigError."""
    given = _first(fields, CHOICES)
    if isinstance(given, str):
        given = _listed(given)
    if isinstance(given, Mapping) and isinstance(given.get("text"), list):
        given = given["text"]  # as in ARC, beside the labels
    if isinstance(given, Mapping) and [str(name).upper() for name in given] == list(LETTERS[: len(given)]):
        given = list(given.values())
    if given is None:
        given = _columns(fields)
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given) or not given:
        raise record.error(f"choices: must be a list of texts; {FORMS}", "choices")
    _check_count(record, given)
    return given


def _columns(fields: Mapping[str, object]) -> list[object]:
    """The choices of columns of their own: A, B …, or choice_a, option1 and the like."""
    for form in _OF_CHOICES:
        for marks in _MARKS:
            found = list(takewhile(lambda value: value is not None, (fields.get(form.format(mark)) for mark in marks)))
            while found and found[-1] == "":
                found.pop()
            if len(found) > 1:
                return found
    return []


def _listed(text: str) -> object:
    """A list as JSON or as Python prints it; the text itself where it is none."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return text


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
    names = [name.strip().lower() for name in rows[0][0]] if rows else []
    if {*QUESTION} & {*names} and {*ANSWER, *OTHER_ANSWERS} & {*names}:
        yield from _with_header(path, rows, asked, subject)
        return
    if not rows:
        raise _at(path, "has no questions", asked)
    yield from _without_header(rows, subject)


def _with_header(path: Path, rows: Sequence[Row], asked: Node | None, subject: str) -> Iterator[Item]:
    names = [name.strip() for name in rows[0][0]]
    if len(rows) == 1:
        raise _at(path, "has no questions", asked)
    for row, place in rows[1:]:
        if len(row) != len(names):
            raise ConfigError(f"has {len(row)} columns; the header has {len(names)}", place)
    if (
        names[0].lower() in QUESTION
        and names[-1].lower() == "answer"
        and not _columns(_lowered(Record(dict(zip(names, names, strict=True)), "")))
        and not {*CHOICES} & {name.lower() for name in names}
    ):
        yield from _without_header(rows[1:], subject)
        return
    yield from of_records((Record(dict(zip(names, row, strict=True)), place) for row, place in rows[1:]), subject)


def _without_header(rows: Sequence[Row], subject: str) -> Iterator[Item]:
    """The original form: question, the choices, the right letter."""
    first = _counts_from([row[-1] for row, _ in rows], [row[1:-1] for row, _ in rows])
    for row, place in rows:
        record = Record({"question": row[0], "answer": row[-1].strip()}, place)
        if len(row) < 4:
            raise record.error(f"has {len(row)} columns; a row is question, choices (two or more), the right letter")
        choices = row[1:-1]
        _check_count(record, choices)
        yield Item(subject, record.text("question"), tuple(choices), _answer(record, record.fields, choices, first))


def _check_count(record: Record, choices: Sequence[str]) -> None:
    if not 2 <= len(choices) <= len(LETTERS):
        raise record.error(f"has {len(choices)} choices; 2 to {len(LETTERS)} are possible", "choices")


def _digits(answer: object) -> str:
    text = answer.strip() if isinstance(answer, str) else ""
    return text if text.isascii() and text.isdecimal() and len(text) < 3 else ""


def _counts_from(answers: Sequence[object], choices: Sequence[Sequence[str]]) -> int | None:
    """Where numbers written as text begin, 0 or 1; None where not all answers are numbers, or these may be either."""
    numbers = [int(digits) for answer in answers if (digits := _digits(answer))]
    if len(numbers) < len(answers):
        return None
    is_last = any(number == len(those) for number, those in zip(numbers, choices, strict=True))
    return 0 if 0 in numbers else 1 if is_last else None


def _answer(record: Record, fields: Mapping[str, object], choices: Sequence[str], first: int | None) -> str:
    """The right letter. Raises ConfigError, also where a row gives it twice and not the same."""
    given = {name: fields[name] for name in ANSWER if fields.get(name) not in (None, "")}
    others = {name: fields[name] for name in OTHER_ANSWERS if fields.get(name) not in (None, "")}
    given = given or dict(list(others.items())[:1])
    found = {name: _letter(record, name, value, choices, first) for name, value in given.items()}
    if len(set(found.values())) > 1:
        said = " and ".join(f"{name} {one_line(str(given[name]))}" for name in found)
        raise record.error(f"{said} are two different answers", next(iter(found)))
    if not found:
        raise record.error(f"answer is missing; {FORMS}", "answer")
    return next(iter(found.values()))


def _letter(record: Record, name: str, answer: object, choices: Sequence[str], first: int | None) -> str:
    """The letter that an answer means: itself, a small one, a number from 0, or the text of one choice."""
    letters = LETTERS[: len(choices)]
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(letters):
        return letters[answer]
    if isinstance(answer, str):
        plain = answer.strip().strip("().").upper()
        if len(plain) == 1 and plain in letters:
            return plain
        if (digits := _digits(answer)) and first is not None and 0 <= int(digits) - first < len(letters):
            return letters[int(digits) - first]
        same = [letter for letter, choice in zip(letters, choices, strict=False) if choice.strip() == answer.strip()]
        if len(same) == 1 and not digits:
            return same[0]
    also = "" if isinstance(answer, str) else "a number from 0 or "
    why = (
        " (numbers must stand in every row, and one of them must tell whether they begin with 0 or 1)"
        if _digits(answer)
        else ""
    )
    raise record.error(f"{name}: {one_line(repr(answer))} must be {also}one of {', '.join(letters)}{why}", name)


def _at(path: Path, what: str, asked: Node | None) -> ConfigError:
    return asked.error(f"{path}: {what}") if asked else ConfigError(what, str(path))
