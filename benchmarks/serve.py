"""What the live page costs: how soon it is ready and in how much memory, how soon maps are there, what a sweep pays.

- ready: from the start of `serve` to the line with its address, and its memory then; a database of 25 × 25 cells
- first, next: from asking for the page of a sweep of so many cells to its last byte, and once more; the page of a part
  of it, by a link of the first; the page after a commit, of which only what has changed is read
- the sweep: processor time that `serve` takes while a page is open beside a sweep of the scripted engine, as a share of
  one core (a run of a cell takes `--cell` seconds), and how long after a commit the page is told of it
- told: how long after a commit an open page of so many cells is told of the tile that has changed, and what that takes
  of the processor; a commit every `--every` seconds
- killed: `serve` is killed `--kills` times beside a sweep, which must not lose a cell

The goals: ready within 0.7 s and 60 MB, the first map of a million cells within 2 s and the next within 0.3 s, 0.5 % of
a core, a commit on the screen within 1 s, and no cell lost in 200 kills.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import _common
import pictures

SLOW = """model: m
engine: fake
prompt: {{text: one two three four five}}
num_ctx: {{start: 512, end: {end}, step: 512}}
num_batch: [2, 4]
warmup: 0
repeats: 1
control: off
second_look: off
"""


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="The live page: what it costs.")
    parser.add_argument("--sides", type=int, nargs="+", default=[25, 300, 1000], help="columns, and as many rows")
    parser.add_argument("--rounds", type=int, default=5, help="starts; the quickest counts")
    parser.add_argument("--told", type=int, default=10, help="commits that an open page of each size is told")
    parser.add_argument("--every", type=float, default=5.0, help="seconds from one of them to the next")
    parser.add_argument("--cell", type=float, default=10.0, help="seconds a cell of the sweep beside it")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long a page is open beside it")
    parser.add_argument("--kills", type=int, default=200, help="how often the server is killed")
    return parser, parser.parse_args()


@contextlib.contextmanager
def served(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """The process, its address, and how long it took."""
    begun = time.perf_counter()
    child = subprocess.Popen(
        [*_common.SWEEP, "serve", "--port", "0", *words], cwd=folder, env=_common.clean_environment(), text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    line = child.stdout.readline()
    seconds = time.perf_counter() - begun
    try:
        yield child, line.split()[0], seconds
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()
        child.stdout.close()


def memory_bytes(pid: int) -> int:
    """What it holds now."""
    import psutil

    return int(psutil.Process(pid).memory_info().rss)


def processor_s(pid: int) -> float:
    """What it has taken of a core so far."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def ready(rounds: int) -> list[list[str]]:
    """How soon, and in how much memory; after the first page as well."""
    import httpx

    with _common.temporary_folder() as folder:
        pictures.fill(folder, 25)
        found = []
        for _ in range(max(1, rounds)):
            with served(folder) as (child, url, seconds):
                at_once, used = memory_bytes(child.pid), processor_s(child.pid)
                httpx.get(url, timeout=120).raise_for_status()
                found.append((seconds, used, at_once, memory_bytes(child.pid)))
    seconds, used, at_once, after = min(found)
    return [[f"{seconds:.2f} s", f"{used:.2f} s", f"{at_once / 1e6:.0f} MB", f"{after / 1e6:.0f} MB"]]


def maps(sides: list[int]) -> Iterator[list[str]]:
    """The first page, the same again, one of a part of the map, and the first after a commit."""
    for side in sides:
        with _common.temporary_folder() as folder:
            pictures.fill(folder, side, is_judged=True)
            with served(folder) as (child, url, _):
                text, first = asked(child, url)
                _, again = asked(child, url)
                links = re.findall(r'data-zoom="\./([^"]*)"', text)
                _, part = asked(child, url + html.unescape(links[len(links) // 2])) if links else ("", "no tile")
                commit(folder)
                _, after = asked(child, url)
                peak = memory_bytes(child.pid)
        yield [f"{side} × {side}", first, again, part, after, f"{len(text) / 1e6:.2f} MB", f"{peak / 1e6:.0f} MB"]


def asked(child: subprocess.Popen[str], url: str) -> tuple[str, str]:
    """A page, and how long it took: the time, and of that the processor's."""
    import httpx

    begun, used = time.perf_counter(), processor_s(child.pid)
    text = httpx.get(url, timeout=600).raise_for_status().text
    return text, f"{time.perf_counter() - begun:.2f} s ({processor_s(child.pid) - used:.2f} s)"


def commit(folder: Path) -> None:
    """The last cell is measured once more, and a little quicker."""
    with contextlib.closing(sqlite3.connect(folder / "sweeps.db")) as connection, connection:
        connection.execute(
            """INSERT INTO attempts (cell_id, sweep_id, segment_id, number, status, started_at, finished_at, runs,
                    prompt_eval_count, prompt_eval_rate, prompt_eval_rate_min, prompt_eval_rate_max)
                SELECT cell_id, sweep_id, segment_id, number + 1, 'ok', started_at, finished_at, 3, 1273, 100 + number,
                    99 + number, 101 + number FROM attempts ORDER BY id DESC LIMIT 1"""
        )
        connection.execute(
            """UPDATE cells SET status = 'ok', reason = '', attempts = attempts + 1,
                    attempt_id = (SELECT max(id) FROM attempts)
                WHERE id = (SELECT cell_id FROM attempts ORDER BY id DESC LIMIT 1)"""
        )


def told(side: int, commits: int, every_s: float) -> list[str]:
    """The time from a commit to what an open page hears of it."""
    import httpx

    with _common.temporary_folder() as folder:
        pictures.fill(folder, side, is_judged=True)
        with served(folder) as (child, url, _):
            httpx.get(url, timeout=600).raise_for_status()
            heard: list[float] = []
            threading.Thread(target=listen, args=(url, heard, "event: cells"), daemon=True).start()
            time.sleep(2)
            late, used = [], processor_s(child.pid)
            for _ in range(commits):
                commit(folder)
                at = time.monotonic()
                while time.monotonic() - at < 30 and not any(one >= at for one in heard):
                    time.sleep(0.005)
                late.append(next((one - at for one in heard if one >= at), 30.0))
                time.sleep(max(0.0, every_s - (time.monotonic() - at)))
            spent = (processor_s(child.pid) - used) / commits
    return [f"{side} × {side}", str(commits), f"{sorted(late)[len(late) // 2]:.2f} s", f"{max(late):.2f} s",
            f"{1000 * spent:.0f} ms"]  # fmt: skip


@contextlib.contextmanager
def sweeping(folder: Path, cell_s: float, cells: int) -> Iterator[subprocess.Popen[bytes]]:
    """A sweep that measures; it is asked to end with the block."""
    (folder / "fake.json").write_text(json.dumps({"seconds": cell_s}), "utf-8")
    (folder / "slow.yaml").write_text(SLOW.format(end=512 * max(1, cells // 2)), "utf-8")
    child = subprocess.Popen(
        [*_common.SWEEP, "run", "slow.yaml"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=_common.clean_environment(OLLAMA_SWEEP_FAKE=str(folder / "fake.json")),
    )  # fmt: skip
    while not (folder / "sweeps.db").exists() or not counted(folder):
        time.sleep(0.05)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.wait()


def counted(folder: Path, where: str = "1") -> int:
    """Cells of the plan."""
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'sweeps.db'}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute(f"SELECT count(*) FROM results WHERE {where}").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def beside(cell_s: float, seconds: float) -> list[str]:
    """The share of a core with a page open, and the time from a commit to the page."""
    import httpx

    cells = int(2 * seconds / max(cell_s, 0.01)) + 10
    with _common.temporary_folder() as folder, sweeping(folder, cell_s, cells), served(folder) as (child, url, _):
        httpx.get(url, timeout=120).raise_for_status()
        heard: list[float] = []
        threading.Thread(target=listen, args=(url, heard), daemon=True).start()
        time.sleep(2)
        used, begun = processor_s(child.pid), time.monotonic()
        late, before = [], counted(folder, "status = 'ok'")
        while time.monotonic() - begun < seconds:
            time.sleep(0.02)
            if (now := counted(folder, "status = 'ok'")) != before:
                before, at = now, time.monotonic()
                while time.monotonic() - at < 5 and not any(one >= at - 0.02 for one in heard):
                    time.sleep(0.01)
                late.append(next((one - at for one in heard if one >= at - 0.02), 5.0))
        share = (processor_s(child.pid) - used) / (time.monotonic() - begun)
    worst = f"{max(0.0, _common.percentile(late, 0.95)):.2f} s" if late else "no commit"
    return [f"{cell_s:g} s", str(len(late)), f"{100 * share:.2f} %", worst]


def listen(url: str, heard: list[float], event: str = "event: progress") -> None:
    """When the page was told of this."""
    import httpx

    with contextlib.suppress(httpx.HTTPError), httpx.stream("GET", f"{url}events", timeout=None) as answer:
        for line in answer.iter_lines():
            if line == event:
                heard.append(time.monotonic())  # noqa: PERF401 - another thread reads it meanwhile


def killed(kills: int) -> list[str]:
    """The server is killed at any moment, with a page that reads; the sweep must not notice."""
    with _common.temporary_folder() as folder, sweeping(folder, 0.2, kills * 40) as sweep:
        beside_it = 0
        for number in range(kills):
            child = subprocess.Popen(
                [*_common.SWEEP, "serve", "--port", "0"], cwd=folder, env=_common.clean_environment(), text=True,
                stdout=subprocess.PIPE,
            )  # fmt: skip
            assert child.stdout is not None
            url = child.stdout.readline().split()[0]
            asker = subprocess.Popen([sys.executable, "-c", f"import urllib.request as u; u.urlopen({url!r}).read()"],
                                     stderr=subprocess.DEVNULL)  # fmt: skip
            time.sleep(0.15 + 0.5 * (number * 7919 % 1000) / 1000)
            os.kill(child.pid, signal.SIGKILL)
            beside_it += sweep.poll() is None
            child.wait()
            child.stdout.close()
            asker.wait()
        sweep.send_signal(signal.SIGTERM)
        code = sweep.wait()
        done = counted(folder, "status = 'ok'")
        lost = counted(folder, "status NOT IN ('ok', 'pending')")
        damage = _common.timed([*_common.SWEEP, "verify"], folder=folder, env=_common.clean_environment()).returncode
    return [str(kills), str(beside_it), str(code), str(done), str(lost), str(damage)]


def main() -> None:
    """Measure and print."""
    parser, arguments = parse_arguments()
    _common.head(parser)
    _common.table(["ready", "processor", "memory", "after a page of 625 cells"], ready(arguments.rounds))
    _common.table(
        ["cells", "first page (processor)", "again", "a part", "after a commit", "size", "memory then"],
        list(maps(arguments.sides)),
    )
    if arguments.told:
        _common.table(["cells", "commits", "told, middle", "told, last", "processor each"],
                      [told(side, arguments.told, arguments.every) for side in arguments.sides])  # fmt: skip
    if arguments.seconds:
        _common.table(["a cell", "commits", "of a core", "told, 95 %"], [beside(arguments.cell, arguments.seconds)])
    if arguments.kills:
        _common.table(["kills", "beside the sweep", "exit of the sweep", "cells measured", "lost", "exit of verify"],
                      [killed(arguments.kills)])  # fmt: skip


if __name__ == "__main__":
    main()
