"""A path where no file can be: one line, its exit code, nothing made, whatever the command."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from pathlib import Path
from unittest import mock

import pytest
from sweeping import Program, program

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.machine import places
from ollama_sweep.store.beside import check_database

ON_DATABASE = ["run grid.yaml", "run grid.yaml --detach", "plan grid.yaml", "status", "watch", "pause", "continue",
               "stop", "logs", "export", "best", "report", "heatmap", "plot heatmap", "import old.json", "doctor",
               "recover --to new.db", "service grid.yaml --for systemd"]  # fmt: skip
WRITING = ["export --force -o", "best --force -o", "recover --to"]
INTO = ["run grid.yaml --db new.db --out", "heatmap --out", "plot heatmap --out", "report --out"]
WRONG = {"/dev/null": 2, "pipe": 2, "folder": 2, "n" * 256: 2, "loop": 4, "loop/x.db": 4}
"""What lies at a path, and the exit code where a file is wanted."""


@pytest.fixture
def places_of(program: Program) -> Program:
    """A folder with everything that is no file, and a finished sweep."""
    os.mkfifo(program.folder / "pipe")
    (program.folder / "folder").mkdir()
    (program.folder / "loop").symlink_to("loop")
    (program.folder / "old.json").write_text('{"results": [{"num_ctx": 1, "num_batch": 1, "prompt_eval_rate": 5}]}')
    program("run", program.grid()).must()
    return program


def refused(program: Program, words: list[str], code: int) -> None:
    before = program.files()
    ended = program(*words)
    assert ended.returncode == code, (words, ended)
    assert re.fullmatch(r"error: [^\n]+\n", ended.stderr), (words, ended)
    assert not ended.stdout, (words, ended)
    assert program.files() == before, words


def test_a_path_where_no_file_can_be_is_refused_before_anything_is_made(places_of: Program) -> None:
    for path, code in WRONG.items():
        for command in ON_DATABASE:
            refused(places_of, [*command.split(), "--db", path], code)
        for command in [*WRITING, "import"]:
            refused(places_of, [*command.split(), path], code)
    for command in INTO:
        for path, code in {**WRONG, "grid.yaml": 2, "grid.yaml/x": 2, f"new/{'n' * 256}": 2}.items():
            if path != "folder":
                refused(places_of, [*command.split(), path], code)
    refused(places_of, ["status", "--db", "n" * 251], 2)


def test_a_folder_where_a_file_of_the_database_belongs(places_of: Program) -> None:
    for suffix, commands in {
        "pause": ["pause", "continue", "run grid.yaml", "import old.json"],
        "log": ["logs", "run grid.yaml --detach"],
    }.items():
        (places_of.folder / f"sweeps.db.{suffix}").mkdir()
        for command in commands:
            refused(places_of, command.split(), 2)
        assert "pause is asked for" not in places_of("status").must().stdout
        (places_of.folder / f"sweeps.db.{suffix}").rmdir()


def test_nothing_is_laid_or_taken_away_beside_another_programs_database(places_of: Program) -> None:
    with sqlite3.connect(places_of.folder / "alien.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    (places_of.folder / "alien.db.pause").write_text("theirs")
    for command in ("pause", "continue"):
        refused(places_of, [command, "--db", "alien.db"], 3)


def test_data_go_to_stdout_alone(places_of: Program) -> None:
    for kind in ("csv", "json", "md"):
        wanted = places_of("export", "--format", kind).must()
        for name in ("-", "/dev/stdout", "/dev/fd/1"):
            assert places_of("export", "--format", kind, "-o", name).must() == wanted
    assert not (places_of.folder / "-").exists()


def test_a_working_folder_that_is_gone(program: Program) -> None:
    gone = program.folder / "gone"
    gone.mkdir()
    with contextlib.chdir(program.folder):
        os.chdir(gone)
        gone.rmdir()
        with pytest.raises(StorageError, match="the working folder cannot be used"):
            places.look(Path("x"))
        with mock.patch("contextlib.chdir"):
            for words in (["status"], ["run", "x.yaml"], ["export", "-o", "x"]):
                assert program(*words).must(4).stderr.startswith("error: the working folder cannot be used")
            program("--version").must()


def test_what_the_system_says_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, kind in {
        errno.EACCES: StorageError,
        errno.EPERM: StorageError,
        errno.EIO: StorageError,
        errno.ELOOP: StorageError,
        errno.ENAMETOOLONG: ConfigError,
    }.items():
        monkeypatch.setattr(Path, "stat", mock.Mock(side_effect=OSError(number, os.strerror(number))))
        for check in (check_database, places.check_source, places.check_output, places.check_folder):
            with pytest.raises(kind):
                check(Path("/x/y.db"))
    with pytest.raises(ConfigError, match=r"a\\x00b: no name can hold"):
        check_database(Path("a\0b"))
