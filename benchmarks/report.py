"""What a page costs: seconds, peak memory and size of `report --html` and `--md`, by the number of cells.

For every size a finished sweep is written into a database as `pictures.py` does; the command is then called as a person
calls it. The goal for 39 × 16 cells is 3 s and 1.5 MB.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import _common
import pictures


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="A page: what the number of cells costs.")
    parser.add_argument("--sides", type=int, nargs="+", default=[4, 25, 50, 300], help="columns, and as many rows")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is made; the quickest counts")
    return parser, parser.parse_args()


def measured(folder: Path, rounds: int, *words: str) -> tuple[list[str], _common.Ended]:
    """Seconds, processor time and peak memory of the quickest round."""
    argv = [*_common.SWEEP, "report", *words]
    found = []
    for _ in range(max(1, rounds)):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = _common.must(_common.timed(argv, folder=folder, env=_common.clean_environment()))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append((ended, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    best = min((one for one, _ in found), key=lambda one: one.seconds)
    processor = min(seconds for _, seconds in found)
    return [f"{best.seconds:.2f} s", f"{processor:.2f} s", f"{best.peak_bytes / 1e6:.0f} MB"], best


def main() -> None:
    """Measure and print."""
    parser, arguments = parse_arguments()
    _common.head(parser)
    rows = []
    for side in arguments.sides:
        with _common.temporary_folder() as folder:
            pictures.fill(folder, side)
            cost, _ = measured(folder, arguments.rounds, "--html", "report.html", "--force")
            size = (folder / "report.html").stat().st_size
            rows.append([f"{side} × {side}", "--html", *cost, f"{size / 1e6:.2f} MB"])
            cost, ended = measured(folder, arguments.rounds, "--md")
            rows.append([f"{side} × {side}", "--md", *cost, f"{len(ended.output.encode()) / 1e3:.0f} kB"])
    _common.table(["cells", "what", "time", "processor", "peak memory", "size"], rows)


if __name__ == "__main__":
    main()
