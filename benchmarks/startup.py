"""How long a person waits for `--help` and for `status`: wall time of the whole process, from exec to exit.

`status` reads a database of 64 finished cells that the fake engine made. A Python that does nothing is measured
beside them, in turn with them: it is the part of the time that no program can save.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

import _common

GOALS_S = {"python -c pass": None, "sweep.py --help": 0.15, "sweep.py status": 0.25}
CONFIG = """\
model: none
engine: fake
prompt: {text: one two three four five six seven eight}
num_ctx: {start: 512, end: 4096, step: 512}
num_batch: {start: 16, end: 128, step: 16}
warmup: 0
repeats: 1
"""


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Start-up: wall time of --help and status.")
    parser.add_argument("--runs", type=int, default=20, help="runs of each command (default 20)")
    return parser, parser.parse_args()


def measure(runs: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of every run of every command, the commands in turn; the first round, which fills caches, is dropped."""
    (folder / "grid.yaml").write_text(CONFIG, "utf-8")
    _common.must(_common.timed([*_common.SWEEP, "run", "grid.yaml"], folder=folder, env=_common.clean_environment()))
    commands = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "sweep.py --help": (*_common.SWEEP, "--help"),
        "sweep.py status": (*_common.SWEEP, "status"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, argv in commands.items():
            ended = _common.must(_common.timed(argv, folder=folder, env=_common.clean_environment()))
            if number:
                seconds[name].append(ended.seconds)
    return seconds


def main() -> None:
    parser, options = parse_arguments()
    _common.head(parser)
    with _common.temporary_folder() as folder:
        seconds = measure(options.runs, folder)
    rows = []
    for name, values in seconds.items():
        goal = GOALS_S[name]
        verdict = "" if goal is None else f"{goal:.2f} s: {'met' if median(values) <= goal else 'missed'}"
        rows.append([name, *(f"{value:.3f} s" for value in (median(values), min(values), max(values))), verdict])
    _common.table(("command", "median", "fastest", "slowest", "goal"), rows)


if __name__ == "__main__":
    main()
