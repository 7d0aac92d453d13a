"""Sweeps under strace: a process that has everything imported forks a sweep, strace takes hold of it, and it goes.

A sweep so started is a process of its own that can be killed or lied to at any system call, and costs a tenth of a
second instead of a whole one. `python traced.py` is that process; it takes one JSON line for each thing to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ollama_fixture import ROOT, clean_environment, skip_outside_ci, until
from sweep_runner import Ended
from sweeping import Program

LOG = "output-strace.txt"
SAID = "output-out"
SIDES = ("", "-wal", "-shm", "-journal", ".lock")
_CALL = re.compile(r'^(\w+)\((?:AT_FDCWD[^,]*, )?(?:\d+<)?"?([^">,]*)')
_ATTACHED = re.compile(r"Process \d+ attached")
_PTRACER, _ANYBODY = 0x59616D61, -1


def require_strace() -> None:
    """Skip, or in CI fail, where strace is missing or may not trace here."""
    if shutil.which("strace") is None:
        skip_outside_ci("strace is not installed")
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True, text=True)
    if tried.returncode != 0:
        skip_outside_ci(f"strace may not trace here: {tried.stderr.strip()}")


class Traced:
    """Starts sweeps under strace."""

    def __init__(self) -> None:
        environment = {**clean_environment(), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/support'}"}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self._answer()

    def close(self) -> None:
        self._server.communicate(timeout=60)

    def _ask(self, **request: Any) -> int:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())

    def run(
        self, program: Program, *words: str | Path, strace: Sequence[str], also: Sequence[str] = (), **environment: str
    ) -> Ended:
        """A command of the program with these options of strace, for system calls on the database's files only.

        `also` names other files of its folder. A full disk is waited for a tenth of a second.
        """
        folder = program.folder
        gate, log, notes = folder / "output-gate", folder / LOG, folder / "output-strace.err"
        os.mkfifo(gate)
        env = {**program.environment(), **environment}
        pid = self._ask(folder=str(folder), words=[str(word) for word in words], env=env)
        files = [folder, *(folder / f"sweeps.db{side}" for side in SIDES), *(folder / name for name in also)]
        paths = [word for file in files for word in ("-P", str(file))]
        with notes.open("wb") as errors:
            tracer = subprocess.Popen(["strace", "-o", str(log), *paths, *strace, "-p", str(pid)], stderr=errors)
        try:
            until("strace has taken hold", lambda: _ATTACHED.search(notes.read_text()) or tracer.poll(), pause_s=0.002)
            gate.open("wb").close()
            code = self._ask(wait=pid)
        finally:
            tracer.terminate()
            tracer.wait(60)
            gate.unlink()
        texts = ((folder / f"output-{name}").read_text("utf-8", "replace") for name in ("out", "err"))
        return Ended(code, *texts)

    @staticmethod
    def calls(program: Program) -> list[tuple[str, str]]:
        """The traced system calls of the last run in their order: what, and on which file (only with `-y`)."""
        lines = (program.folder / LOG).read_text("utf-8", "replace").splitlines()
        found = [match for match in map(_CALL.match, lines) if match]
        return [(match.group(1), Path(match.group(2)).name) for match in found]


@pytest.fixture(scope="module")
def traced() -> Iterator[Traced]:
    require_strace()
    with contextlib.closing(Traced()) as made:
        yield made


# -- the other process -----------------------------------------------------------------------------------------------


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Program(Path(folder))
        program("run", program.grid()).must()
    _say(0)
    for line in sys.stdin:
        request = json.loads(line)
        _say(_wait(request["wait"]) if "wait" in request else _fork(request))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if not pid:
        _child(request)
    return pid


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _child(request: dict[str, Any]) -> NoReturn:
    """A sweep with its output in files, that waits for a full disk a tenth of a second. It begins at its gate."""
    from unittest import mock

    import undrawn

    from ollama_sweep import cli
    from ollama_sweep.results.plots import heatmap
    from ollama_sweep.run import loop, session

    impatient = functools.partial(loop.Execution, wait_disk_s=0.1)
    ctypes.CDLL(None).prctl(_PTRACER, ctypes.c_ulong(_ANYBODY), 0, 0, 0)
    os.chdir(request["folder"])
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"output-{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.update(request["env"])
    sys.argv = ["sweep.py", *request["words"]]
    open("output-gate", "rb").close()
    try:
        with (
            mock.patch.object(heatmap, "render", undrawn.pretend_to_draw),
            mock.patch.object(session, "Execution", impatient),
            mock.patch.object(loop, "DISK_WAIT_S", 0.01),
        ):
            cli.main()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0)
    os._exit(70)


if __name__ == "__main__":
    main()
