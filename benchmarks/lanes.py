"""How much sooner several lanes are done than one: scripted lanes whose cells take two seconds each, in turn.

A lane is a process of its own, and the coordinator commits twice a cell. On a machine with fewer cores than lanes the
lanes share them; scripted ones only wait. With --real: by how much two real servers on this computer, one thread each,
disturb each other, as `doctor --lanes` measures it, and how much sooner both are done than one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sqlite3
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from _common import (
    SWEEP,
    clean_environment,
    head,
    must,
    ollama_server,
    percentile,
    script_output,
    table,
    temporary_folder,
    timed,
)  # fmt: skip

CELL_S, REAL_CELLS = 2.0, 8
SAID = re.compile(r"([0-9.e+]+) tokens/s alone, ([0-9.e+]+) with b at work \((\S+ %); by chance (± \S+ %)\)")
READ = """select count(*), max(julianday(finished_at)) - min(julianday(started_at)) from attempts where status = 'ok'"""


@dataclass(frozen=True)
class Measured:
    """One sweep: the seconds of the whole command, and those from the first cell's begin to the last one's end."""

    command_s: float
    cells_s: float
    cells: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].replace("\n", " "))
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=CELL_S, help="of a cell")
    parser.add_argument("--real", action="store_true", help="two real servers beside each other (needs: make ollama)")
    given = parser.parse_args()
    head(parser)
    if given.real:
        real(given.rounds)
        return
    one, several = [], []
    with temporary_folder() as folder:
        for number in range(given.rounds):
            one.append(measure(folder / f"one-{number}", 1, given.cells, given.seconds))
            several.append(measure(folder / f"several-{number}", given.lanes, given.cells, given.seconds))
    compare(one, several, given.lanes)


def compare(one: list[Measured], several: list[Measured], lanes: int) -> None:
    """Both as a table, and in words."""
    table(
        ["lanes", "cells", "seconds from the first cell to the last", "seconds a cell, median", "whole command"],
        [row(1, one), row(lanes, several)],
    )
    print()
    for what, name in (("from the first cell to the last", "cells_s"), ("with start and end", "command_s")):
        each = [[getattr(one, name) / one.cells for one in found] for found in (one, several)]
        ratios = [a / b for a, b in zip(*each, strict=True)]
        words = f"{statistics.median(ratios):.2f} times as fast as one ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{lanes} lanes are {words}, {what} (rounds: {len(one)})")


def row(lanes: int, found: list[Measured]) -> list[str]:
    each = [one.cells_s / one.cells for one in found]
    return [str(lanes), str(found[0].cells), f"{statistics.median(one.cells_s for one in found):.1f}",
            f"{percentile(each, 0.5):.3f}", f"{statistics.median(one.command_s for one in found):.1f} s"]  # fmt: skip


def measure(folder: Path, lanes: int, cells: int, seconds: float) -> Measured:
    """A sweep of so many cells over so many lanes, each cell one run of so many seconds."""
    folder.mkdir()
    config = {
        "model": "m", "engine": "fake", "prompt": {"text": "one two three"}, "num_batch": [8], "warmup": 0,
        "repeats": 1,
        "num_ctx": [512 + 8 * number for number in range(cells)], "interim": "off", "control": "off",
        "second_look": "off", "hosts": [{"name": f"lane{n}", "host": f"127.0.0.1:{n}"} for n in range(1, lanes + 1)],
    }  # fmt: skip
    (folder / "fake.json").write_text(json.dumps({"seconds": seconds}), "utf-8")
    return run(folder, config, clean_environment(OLLAMA_SWEEP_FAKE=str(folder / "fake.json")), cells)


def run(folder: Path, config: Mapping[str, object], env: Mapping[str, str], cells: int) -> Measured:
    """A sweep, measured to its end."""
    (folder / "s.yaml").write_text(json.dumps(config), "utf-8")
    started = time.perf_counter()
    must(timed([*SWEEP, "run", "s.yaml"], folder=folder, env=env))
    command_s = time.perf_counter() - started
    with contextlib.closing(sqlite3.connect(folder / "sweeps.db")) as connection:
        done, days = connection.execute(READ).fetchone()
    if done != cells:
        sys.exit(f"{done} of {cells} cells were measured")
    return Measured(command_s, days * 86400, done)


# -- two real servers --------------------------------------------------------------------------------------------------


def real(rounds: int) -> None:
    """What `doctor --lanes` finds of two servers with a thread each, and a sweep over one of them and over both."""
    binary, model = script_output("get_ollama", "--print"), script_output("get_model")
    one: list[Measured] = []
    both: list[Measured] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        (folder / "Modelfile").write_text(f"FROM {model}\n", "utf-8")
        servers = [stack.enter_context(ollama_server(binary, folder / name)) for name in "ab"]
        for server in servers:
            server.command("create", "small", "-f", str(folder / "Modelfile"))
        hosts = [{"name": name, "host": server.host} for name, server in zip("ab", servers, strict=True)]
        found = [disturbed(folder / f"doctor-{number}", hosts) for number in range(rounds)]
        table(["alone, tokens/s", "beside the other, tokens/s", "difference", "by chance"], found)
        print(flush=True)
        for number in range(rounds):
            for kept, name, count in ((one, "one", 1), (both, "both", 2)):
                there = folder / f"{name}-{number}"
                there.mkdir()
                kept.append(run(there, real_sweep(hosts[:count]), clean_environment(), REAL_CELLS))
    compare(one, both, 2)


def real_sweep(hosts: list[dict[str, str]]) -> dict[str, object]:
    """Cells of some seconds each; a server computes with one thread."""
    return {
        "model": "small", "engine": "ollama_http", "prompt": {"tokens": 500}, "num_ctx": [1024, 1280, 1536, 2048],
        "num_batch": [64, 128], "num_thread": 1, "warmup": 1, "repeats": 3, "interim": "off", "control": "off",
        "second_look": "off", "hosts": hosts,
    }  # fmt: skip


def disturbed(folder: Path, hosts: list[dict[str, str]]) -> list[str]:
    """What `doctor --lanes` says: the rates alone and beside the other, by how much they differ, and chance."""
    folder.mkdir()
    (folder / "s.yaml").write_text(json.dumps(real_sweep(hosts)), "utf-8")
    said = must(timed([*SWEEP, "doctor", "s.yaml", "--lanes"], folder=folder, env=clean_environment())).output
    found = SAID.search(said)
    if found is None:
        sys.exit(said)
    return list(found.groups())


if __name__ == "__main__":
    main()
