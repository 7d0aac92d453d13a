"""What the tool costs: its wall time against a bare shell loop of `ollama create` and `ollama run --verbose`.

Both measure the same cells once, without a warm-up, on the same server, with the same prompt behind an eight-digit
number, in turn: loop, tool, loop, tool … Before each of them the server is at rest. The loop keeps nothing but what
`ollama` prints; the tool counts the prompt, stores every cell, removes its scratch model and draws the picture.

The tool's time has three parts, told by what its database says of each cell: before the first cell (start, prompt
count, plan), the cells, and after the last one (picture, tables, clearing up). The first and the last part do not grow
with the number of cells, so the ratio of a whole sweep depends on how long the sweep is; "cells only" does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import _common

MODEL, LOOP_MODEL = "bench-base", "bench-loop"
GOAL = 1.02
WORDS = ("the", "river", "runs", "past", "an", "old", "stone", "bridge", "and", "a", "quiet", "market", "before", "it",
         "meets", "wide", "green", "fields", "below", "hills")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One round: seconds of the loop, of the tool, and of the tool's three parts."""

    loop_s: float
    tool_s: float
    before_s: float
    cells_s: float
    after_s: float


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Overhead: wall time of the tool against a bare shell loop.")
    parser.add_argument("--ollama", type=Path, help="the ollama program (default: the newest private build)")
    parser.add_argument("--model", type=Path, help="a .gguf file (default: the small model of scripts/get_model)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of loop and tool (default 5)")
    parser.add_argument("--contexts", type=int, nargs="+", default=[2048, 3072, 4096, 8192], help="num_ctx values")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256, 512], help="num_batch values")
    parser.add_argument("--words", type=int, default=1200, help="words of the prompt (default 1200)")
    return parser, parser.parse_args()


def prompt_text(words: int) -> str:
    """Simple words, always the same."""
    return " ".join(WORDS[number % len(WORDS)] for number in range(words))


def write_inputs(folder: Path, options: argparse.Namespace, binary: Path) -> None:
    """The prompt, the loop and the sweep file."""
    (folder / "prompt.txt").write_text(prompt_text(options.words), "utf-8")
    (folder / "loop_prompt.txt").write_text(f"31415926 {prompt_text(options.words)}", "utf-8")
    contexts, batches = (" ".join(map(str, values)) for values in (options.contexts, options.batches))
    (folder / "loop.sh").write_text(
        f"""set -e
for num_ctx in {contexts}; do
  for num_batch in {batches}; do
    printf 'FROM {MODEL}\\nPARAMETER num_ctx %s\\nPARAMETER num_batch %s\\nPARAMETER num_predict 2\\n' \\
      $num_ctx $num_batch > Modelfile
    {shlex.quote(str(binary))} create {LOOP_MODEL} -f Modelfile
    {shlex.quote(str(binary))} run {LOOP_MODEL} --verbose --nowordwrap < loop_prompt.txt
  done
done
""",
        "utf-8",
    )
    (folder / "grid.yaml").write_text(
        f"model: {MODEL}\nengine: ollama\nprompt: prompt.txt\nwarmup: 0\nrepeats: 1\ncontrol: off\nsecond_look: off\n"
        f"num_ctx: {options.contexts}\nnum_batch: {options.batches}\n",
        "utf-8",
    )


def rest(server: _common.OllamaServer) -> None:
    """Unload everything, and wait until it is gone."""
    for name in (MODEL, LOOP_MODEL):
        body = json.dumps({"model": name, "keep_alive": 0}).encode()
        request = urllib.request.Request(f"http://{server.host}/api/generate", body)
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
    while True:
        with urllib.request.urlopen(f"http://{server.host}/api/ps", timeout=10) as answer:
            if not json.load(answer)["models"]:
                return
        time.sleep(0.1)


def run_loop(server: _common.OllamaServer, folder: Path, cells: int) -> float:
    """Seconds of the shell loop."""
    rest(server)
    ended = _common.must(_common.timed(["bash", "loop.sh"], folder=folder, env=server.environment()))
    found = ended.output.count("prompt eval rate:")
    if found != cells:
        raise SystemExit(f"the loop measured {found} of {cells} cells")
    return ended.seconds


def run_tool(server: _common.OllamaServer, folder: Path, number: int, cells: int) -> tuple[float, float, float, float]:
    """Seconds of the tool on a new database: all, before the cells, the cells, after them."""
    rest(server)
    db = folder / f"round-{number}.db"
    argv = [*_common.SWEEP, "run", "grid.yaml", "--db", str(db), "--host", server.host, "--ollama", str(server.binary)]
    started = time.time()
    ended = _common.must(_common.timed(argv, folder=folder, env=server.environment()))
    with contextlib.closing(sqlite3.connect(db)) as connection:
        sql = "select count(*), min(started_at), max(finished_at) from results where status = 'ok'"
        count, first, last = connection.execute(sql).fetchone()
    if count != cells:
        raise SystemExit(f"the tool measured {count} of {cells} cells")
    begin, end = (datetime.fromisoformat(text).timestamp() for text in (first, last))
    return ended.seconds, begin - started, end - begin, started + ended.seconds - end


def measure(options: argparse.Namespace, folder: Path) -> list[Pair]:
    """All rounds, the loop and the tool in turn, after one load that fills the disk's cache."""
    binary = options.ollama.absolute() if options.ollama else _common.script_output("get_ollama", "--print")
    model = options.model.absolute() if options.model else _common.script_output("get_model")
    cells = len(options.contexts) * len(options.batches)
    pairs = []
    with _common.ollama_server(binary, folder / "server") as server:
        (folder / "Modelfile").write_text(f"FROM {model}\nPARAMETER num_predict 2\n", "utf-8")
        server.command("create", MODEL, "-f", str(folder / "Modelfile"))
        write_inputs(folder, options, binary)
        server.command("run", MODEL, "Hello")
        for number in range(1, options.rounds + 1):
            loop_s = run_loop(server, folder, cells)
            pair = Pair(loop_s, *run_tool(server, folder, number, cells))
            pairs.append(pair)
            told = f"{pair.tool_s / pair.loop_s:.3f}, cells only {pair.cells_s / pair.loop_s:.3f}"
            print(f"round {number}: loop {pair.loop_s:.2f} s, tool {pair.tool_s:.2f} s, ratio {told}", flush=True)
    return pairs


def rows(pairs: Sequence[Pair], cells: int) -> list[list[str]]:
    """Every figure with its median, smallest and largest."""
    figures = {
        "ratio, whole command": ("{:.3f}", [pair.tool_s / pair.loop_s for pair in pairs]),
        "ratio, cells only": ("{:.3f}", [pair.cells_s / pair.loop_s for pair in pairs]),
        "shell loop, a cell": ("{:.2f} s", [pair.loop_s / cells for pair in pairs]),
        "tool, a cell": ("{:.2f} s", [pair.cells_s / cells for pair in pairs]),
        "tool, a cell more than the loop": ("{:+.2f} s", [(pair.cells_s - pair.loop_s) / cells for pair in pairs]),
        "tool, before the first cell": ("{:.2f} s", [pair.before_s for pair in pairs]),
        "tool, after the last cell": ("{:.2f} s", [pair.after_s for pair in pairs]),
    }
    return [
        [name, *(form.format(value) for value in (median(values), min(values), max(values)))]
        for name, (form, values) in figures.items()
    ]


def main() -> None:
    parser, options = parse_arguments()
    _common.head(parser)
    cells = len(options.contexts) * len(options.batches)
    with _common.temporary_folder() as folder:
        pairs = measure(options, folder)
    print()
    _common.table((f"{cells} cells, {len(pairs)} rounds", "median", "smallest", "largest"), rows(pairs, cells))
    loop_s = median([pair.loop_s for pair in pairs])
    ratio = median([pair.tool_s / pair.loop_s for pair in pairs])
    print(f"\nGoal for the whole command: at most {GOAL}. {'Met' if ratio <= GOAL else 'Missed'} with {cells} cells.")
    fixed_s = median([pair.before_s + pair.after_s for pair in pairs])
    left = GOAL - median([pair.cells_s / pair.loop_s for pair in pairs])
    if left > 0:
        minutes = fixed_s / left / 60
        print(f"By these figures it is met by every sweep whose shell loop takes more than {minutes:.1f} minutes.")
    print(f"The loop took {loop_s:.0f} s for {cells} cells.")


if __name__ == "__main__":
    main()
