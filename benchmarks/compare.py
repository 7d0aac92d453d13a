"""`compare`: false alarms and what is found, on simulated cells of known truth, and with --real on a real engine.

Simulated are 200 cells with 1.5 % between the runs of a load and 1.2 % between loads, by the program's own rule. An
alarm is a comparison in which a cell that did not change is called slower or faster. Found is a comparison in which one
of the cells that changed is called slower; the share of all changed cells stands beside it. "As by default" is a sweep
whose file says nothing of control, passes and second look: that one's loads tell of loads, too, where they stand beside
others of the same choice.

With --real the same sweep is measured twice on one server, in turns, so that nothing but noise differs (A/A); then with
one thread against two. What is measured stays in --folder, where the same command goes on after it was stopped.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common
import numpy as np

import ollama_sweep
from ollama_sweep.core.errors import Stopped
from ollama_sweep.core.loading.controls import controls_wanted
from ollama_sweep.core.noise.spread import Load, load_of, spreads_of, value_of
from ollama_sweep.results import second_look
from ollama_sweep.run.session import SessionOptions

CELLS, LOADS, RUNS = 200, 0.012, 0.015
MODEL = "bench-base"
GRID = """model: {model}
engine: ollama
prompt: {{text: "{prompt}"}}
num_ctx: [1024, 2048]
num_batch: [32, 128]
num_predict: 2
num_thread: {threads}
warmup: 1
repeats: 3
control: off
second_look: off
interim: off
"""


@dataclass(frozen=True)
class Design:
    """How the cells of one row are measured, and what changed in how many of them."""

    threshold: float = 0.05
    changed: int = 0
    by: float = 0.0
    loads: int = 1
    runs: int = 3
    controls: int = 20
    between_b: float = LOADS
    controls_b: int | None = None
    as_by_default: bool = False
    looks: bool = True

    def words(self) -> str:
        what = f"{self.by:+.0%} in {self.changed}" if self.changed else "nothing"
        if self.as_by_default:
            looks = "" if self.looks else ", no second look"
            return f"{what}; as by default (control in {controls_wanted(CELLS)}{looks}); {self.threshold:.0%}"
        noisy = f", B {self.between_b:.1%} between loads" if self.between_b != LOADS else ""
        control = f"{self.controls}" if self.controls_b is None else f"{self.controls} and {self.controls_b}"
        return f"{what}; {self.loads} load(s) of {self.runs} runs, control in {control}; {self.threshold:.0%}{noisy}"


DESIGNS = (
    Design(as_by_default=True),
    Design(as_by_default=True, threshold=0.03),
    Design(changed=5, by=-0.15, as_by_default=True),
    Design(changed=40, by=-0.08, threshold=0.03, as_by_default=True),
    Design(changed=5, by=-0.15, as_by_default=True, looks=False),
    Design(changed=40, by=-0.08, threshold=0.03, as_by_default=True, looks=False),
    Design(),
    Design(threshold=0.03),
    Design(runs=10),
    Design(controls=5),
    Design(loads=2, threshold=0.03),
    Design(between_b=0.05),
    Design(between_b=0.05, controls=20, controls_b=5),
    Design(between_b=0.16, controls=5),
    Design(changed=5, by=-0.15),
    Design(changed=5, by=-0.15, controls=5),
    Design(changed=5, by=-0.15, runs=10),
    Design(changed=5, by=-0.15, loads=2),
    Design(changed=40, by=-0.08, threshold=0.03),
    Design(changed=40, by=-0.08, threshold=0.03, runs=10),
    Design(changed=40, by=-0.08, threshold=0.03, loads=2),
    Design(changed=40, by=-0.08, threshold=0.03, loads=3),
)


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare: false alarms, and what is found.")
    parser.add_argument("--comparisons", type=int, default=500, help="simulated comparisons a row (default 500)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (default 1)")
    parser.add_argument("--real", action="store_true", help="measure on a real engine in place of the simulation")
    parser.add_argument("--pairs", type=int, default=10, help="A/A pairs with --real (default 10)")
    parser.add_argument("--loads", type=int, default=3, help="loads of each cell with --real (default 3)")
    parser.add_argument("--words", type=int, default=100, help="length of the prompt with --real (default 100)")
    parser.add_argument(
        "--folder", type=Path, help="where --real keeps its databases (default: a new one, then removed)"
    )
    return parser, parser.parse_args()


# -- simulated ---------------------------------------------------------------------------------------------------------


def side(chance: Any, design: Design, *, is_b: bool) -> tuple[list[Any], Any]:
    """The cells of a side as the rule takes them, and their spreads."""
    from ollama_sweep.results.compare import rule

    between = design.between_b if is_b else LOADS
    controls = design.controls_b if is_b and design.controls_b is not None else design.controls

    def loads(count: int, level: float) -> list[Load]:
        levels = level + chance.normal(0, between, count)
        return [load_of([float(run) for run in np.exp(one + chance.normal(0, RUNS, design.runs))]) for one in levels]

    by = math.log1p(design.by) if is_b else 0.0
    levels = [4.6 + by * (number < design.changed) for number in range(CELLS)]
    cells = [loads(design.loads, level) for level in levels]
    if not design.as_by_default:
        return [rule.measured(cell) for cell in cells], spreads_of([*cells, loads(controls, 4.6)])
    more = loads(controls_wanted(CELLS), levels[-1])
    first = [*cells[:-1], [*cells[-1], *more]]
    if design.looks:
        look_again(cells, levels, (CELLS + len(more)) // 10, loads)
    return [rule.measured(cell) for cell in cells], spreads_of([*first, *(cell for cell in cells if len(cell) > 1)])


def look_again(
    cells: list[list[Load]], levels: Sequence[float], count: int, loads: Callable[[int, float], list[Load]]
) -> None:
    """The leading ones get a fresh load each in place of what they had, then the best one several."""
    leading = sorted(range(CELLS), key=lambda number: -value_of(cells[number]))[: int(count * second_look.LEADING)]
    for number in leading:
        cells[number] = loads(1, levels[number])
    best = max(range(CELLS), key=lambda number: value_of(cells[number]))
    cells[best] = loads(min(second_look.MOST_OF_THE_BEST, count - len(leading)), levels[best])


def simulated(design: Design, comparisons: int, seed: int) -> list[str]:
    """A row of the table."""
    from ollama_sweep.results.compare import rule
    from ollama_sweep.results.compare.rule import Verdict

    chance = np.random.default_rng(seed)
    alarms, found, cells, same, whole = 0, 0, 0, 0, 0
    for _ in range(comparisons):
        (a, of_a), (b, of_b) = (side(chance, design, is_b=is_b) for is_b in (False, True))
        noise, limits = rule.noise_of(of_a, of_b), rule.Limits(design.threshold)
        verdicts = [one.verdict for one in rule.judge([rule.change(*pair, noise) for pair in zip(a, b, strict=True)],
                                                      limits)]  # fmt: skip
        over_all = rule.judge_one(rule.change_over_all(list(zip(a, b, strict=True)), noise), limits)
        alarms += any(one in (Verdict.SLOWER, Verdict.FASTER) for one in verdicts[design.changed :])
        found += Verdict.SLOWER in verdicts[: design.changed]
        cells += verdicts[: design.changed].count(Verdict.SLOWER)
        same += verdicts.count(Verdict.SAME)
        whole += over_all is not None and over_all.verdict is Verdict.SAME

    def share(count: int, of: int) -> str:
        return f"{100 * count / of:.1f} %" if of else ""

    hits = [share(found, comparisons), share(cells, comparisons * design.changed)] if design.changed else ["", ""]
    return [
        design.words(),
        share(alarms, comparisons),
        *hits,
        share(same, comparisons * CELLS),
        share(whole, comparisons),
    ]


def simulate(options: argparse.Namespace) -> None:
    """The table of all designs."""
    rows = [simulated(design, options.comparisons, options.seed) for design in DESIGNS]
    _common.table(["what changed; how it was measured; threshold", "alarm", "found", "of the cells", "cells: same",
                   "over all: same"], rows)  # fmt: skip


# -- on a real engine --------------------------------------------------------------------------------------------------


def measure(folder: Path, names: Sequence[str], loads: int, host: str, ollama: Path) -> None:
    """Each sweep of these files into its own database, in turns: A B B A …; a further load is one more pass."""
    options = SessionOptions(no_pause=True)
    for number in range(loads):
        for name in names if number % 2 == 0 else names[::-1]:
            spec = ollama_sweep.load(folder / f"{name}.yaml", passes=number + 1, host=host, ollama=str(ollama))
            ollama_sweep.measure(spec, folder / f"{name}.db", options=options)
            print(f"{name}: pass {number + 1} of {loads}", file=sys.stderr, flush=True)


def real_row(what: str, part: Mapping[str, Any], began: float) -> list[str]:
    """A row of the table."""
    counts, spreads = part["counts"], part["spreads"]["a"]
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    noise = f"{100 * spreads['runs']:.1f} % / {100 * spreads['loads']:.1f} %" if part["loads_known"] else "not known"
    whole = part["over_all"]
    change = f"{100 * (whole['ratio'] - 1):+.1f} %, {whole['verdict']}" if whole["ratio"] else "nothing"
    left_out = sum(part["left_out"].values())
    return [what, said or "nothing", str(left_out), change, noise, f"{time.monotonic() - began:.0f} s"]


def on_a_real_engine(options: argparse.Namespace, folder: Path) -> None:
    """A/A pairs, then one thread against two."""
    binary, model = _common.script_output("get_ollama", "--print"), _common.script_output("get_model")
    rows, alarms = [], 0
    with _common.ollama_server(binary, folder / "server") as server:
        (folder / "Modelfile").write_text(f"FROM {model}\n", "utf-8")
        server.command("create", MODEL, "-f", str(folder / "Modelfile"))
        os.environ.update(server.environment())
        pairs = [(f"A/A {number}", f"a{number}", f"b{number}", 1, 1) for number in range(1, options.pairs + 1)]
        for what, a, b, *threads in [*pairs, ("1 thread, then 2", "one", "two", 1, 2)]:
            began = time.monotonic()
            for name, count in zip((a, b), threads, strict=True):
                text = GRID.format(model=MODEL, threads=count, prompt=" ".join(["lamp"] * options.words))
                (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}", "utf-8")
            try:
                measure(folder, (a, b), options.loads, server.host, server.binary)
            except Stopped as stop:
                raise SystemExit(f"{stop}; with --folder the same command goes on") from None
            (part,) = ollama_sweep.compare(str(folder / f"{a}.db"), str(folder / f"{b}.db")).parts
            found = part.as_dict()
            counts: Any = found["counts"]
            alarms += what.startswith("A/A") and bool(counts["slower"] + counts["faster"])
            rows.append(real_row(what, found, began))
            print(", ".join(rows[-1]), flush=True)
    print()
    _common.table(["pair", "cells", "left out", "over all", "runs / loads", "took"], rows)
    print(f"\nA/A pairs with an alarm: {alarms} of {options.pairs}")


def main() -> None:
    parser, options = parse_arguments()
    _common.head(parser)
    if options.real and options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        on_a_real_engine(options, options.folder.absolute())
    elif options.real:
        with _common.temporary_folder() as folder:
            on_a_real_engine(options, folder)
    else:
        simulate(options)


if __name__ == "__main__":
    main()
