"""`run --serve`: a page beside a run that ends with it, however that ends, and never harms it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import psutil
from detached_runs import detached, ended
from ollama_fixture import until
from served import Page
from sweep_runner import Started
from sweeping import GRID, Program
from sweeping import program as program  # a fixture


def page_of(started: Started) -> str:
    """Where it says that its page is."""

    def printed() -> str | None:
        assert started.is_running(), started.wait(1)
        found = re.search(r"Page: (http://\S+/)", started.said)
        return found[1] if found else None

    return until("the page's address", printed)


def is_gone(url: str) -> bool:
    try:
        httpx.get(url, timeout=60)
    except httpx.TimeoutException:
        return False
    except httpx.HTTPError:
        return True
    return False


def test_the_page_shows_the_sweep_and_ends_with_it(program: Program) -> None:
    gate = program.folder / "gate"
    program.script(gate=str(gate))
    started = program.start("run", program.config(**GRID), "--serve", env=program.environment())
    url = page_of(started)
    assert "0 of 4 cells" in Page(httpx.get(url, timeout=60).text).said
    gate.touch()
    ended = started.wait(120).must(0)
    assert "Best:" in ended.stdout
    until("the page has ended", lambda: is_gone(url))


def test_the_page_ends_with_a_run_that_is_killed(program: Program) -> None:
    program.script(gate=str(program.folder / "gate"))
    started = program.start("run", program.config(**GRID), "--serve", env=program.environment())
    url = page_of(started)
    started.kill(signal.SIGKILL)
    until("the page has ended", lambda: is_gone(url))


def test_a_page_that_is_killed_is_no_loss(program: Program) -> None:
    gate = program.folder / "gate"
    program.script(gate=str(gate))
    started = program.start("run", program.config(**GRID), "--serve", env=program.environment())
    url = page_of(started)
    (page,) = [one for one in psutil.Process(started.pid).children() if "serve" in one.cmdline()]
    page.kill()
    until("the page has ended", lambda: is_gone(url))
    gate.touch()
    started.wait(120).must(0)
    assert [row["status"] for row in program.rows()] == ["ok"] * 4


def test_its_token_stands_beside_the_database_and_in_no_log(program: Program) -> None:
    gate = program.folder / "gate"
    program.script(gate=str(gate))
    running = detached(program, program.config(**GRID), "--serve", "--control")
    kept, log = program.folder / "sweeps.db.serve", program.folder / "sweeps.db.log"
    until("the page", lambda: "Page: http" in log.read_text("utf-8"))
    address = kept.read_text("utf-8").strip()
    answer = httpx.get(address, timeout=60)
    assert answer.status_code == 303
    gate.touch()
    until("the page has ended", lambda: is_gone(address))
    until("its file is gone", lambda: not kept.exists())
    ended(running)
    assert address.partition("token=")[2] not in log.read_text("utf-8")


def test_control_is_nothing_without_a_page(program: Program) -> None:
    ended = program("run", program.config(**GRID), "--control").must(2)
    assert "--control: only with --serve" in ended.stderr
    assert not Path(program.folder / "sweeps.db").exists()
