"""Files are written whole or not at all, under names that are safe."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.machine.files import clear_leftovers, inside, safe_name, write_whole

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from ollama_sweep.machine.files import write_whole

def half(stream):
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_whole(Path(sys.argv[1]), half)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_and_functions_are_written(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "a.txt", b"one")
    write_whole(tmp_path / "new" / "a.txt", lambda stream: stream.write(b"two"))
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"two"
    assert names(tmp_path / "new") == ["a.txt"]


def test_an_exception_in_the_middle_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_whole(target, b"old")

    def broken(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        write_whole(target, broken)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_kill_in_the_middle_keeps_the_old_file_and_the_next_write_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_whole(target, b"old")
    ended = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, target], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    write_whole(target, b"new")
    assert names(tmp_path) == ["a.txt"]
    assert target.read_bytes() == b"new"


def test_the_temporary_file_of_a_living_process_stays(tmp_path: Path) -> None:
    mine = tmp_path / f".ollama-sweep.{os.getpid()}-00112233.tmp"
    other = tmp_path / ".somebody.1-00112233.tmp"
    mine.touch()
    other.touch()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == sorted([mine.name, other.name])


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no space left; the old file is unchanged"),
                                               (errno.EDQUOT, "no space left; the old file is unchanged"),
                                               (errno.EACCES, "cannot be written")])  # fmt: skip
def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path, number: int, words: str) -> None:
    def refuse(stream: BinaryIO) -> None:
        raise OSError(number, os.strerror(number))

    write_whole(tmp_path / "a.txt", b"old")
    with pytest.raises(StorageError, match=words) as caught:
        write_whole(tmp_path / "a.txt", refuse)
    assert str(tmp_path / "a.txt") in str(caught.value)
    assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("text", ["quickstart", "num_gpu-0", "qwen2.5", "Größe"])
def test_good_names_stay(text: str) -> None:
    assert safe_name(text) == text


@pytest.mark.parametrize(
    "text",
    ["CON", "con.txt", "a/b", "..", ".", "", "x" * 300, "ü" * 300, ".hidden", "a\nb", "a:b", "\\\\host", "\ud800"],
)
def test_bad_names_are_made_safe(text: str) -> None:
    made = safe_name(text)
    assert made != text
    assert len(made.encode()) <= 110
    assert not set(made) & set('/\\:*?"<>|\n\0')
    assert made.split(".")[0].split("-")[0].lower() not in {"con", ""}


def test_names_that_look_alike_stay_apart_where_that_matters() -> None:
    assert safe_name("a/b") != safe_name("a:b") != safe_name("a-b")
    assert safe_name("model-qwen2:1.5b", exact=False) == "model-qwen2-1.5b"
    assert safe_name("x" * 300, exact=False) != safe_name("x" * 301, exact=False)


@given(st.text(), st.text())
def test_two_texts_never_share_a_name(first: str, second: str) -> None:
    assert (safe_name(first) == safe_name(second)) == (first == second)


def test_generated_names_stay_in_their_folder(tmp_path: Path) -> None:
    assert inside(tmp_path, "../../etc", "passwd").resolve().is_relative_to(tmp_path.resolve())
    assert inside(tmp_path, "quickstart") == tmp_path / "quickstart"


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "quickstart").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="would be written outside"):
        inside(tmp_path / "out", "quickstart")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, b"text")
        assert os.read(reader, 100) == b"text"
        assert pipe.is_fifo()
    finally:
        os.close(reader)
