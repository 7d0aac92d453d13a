"""Records maps of a real Ollama for tests of planners: models of several sizes, threads, and memory that ends.

Each cell is loaded `--passes` times in an order of its own, with one run before three counted ones. The models have
random weights; where memory is to end, llama-server has so many bytes of address space and no more.

    python benchmarks/record_maps.py FOLDER
    python benchmarks/record_maps.py FOLDER 12-layers-2-threads --passes 3
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import _common
import _random_model
from _random_model import Shape

import ollama_sweep
from ollama_sweep.core.recording.writing import packed, written
from ollama_sweep.run.session import SessionOptions
from ollama_sweep.store.reader import Reader

SMALL = (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
WIDE = (1024, 2048, 4096, 8192, 16384, 24576, 32768, 49152)
FEW, MANY = (4, 8, 16, 24, 32, 64, 96, 128), (8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Wanted:
    """A map: the model, threads, tokens of the prompt, the grid, and the address space in MB where it is limited."""

    shape: Shape
    threads: int
    tokens: int
    contexts: tuple[int, ...]
    batches: tuple[int, ...]
    limit_mb: int | None = None


MAPS = {
    "12-layers-2-threads": Wanted(Shape(12), 2, 192, SMALL, FEW),
    "experts-1-thread-memory-limit": Wanted(Shape(6, experts=48), 1, 96, WIDE, MANY, 1300),
    "24-layers-2-threads-memory-limit": Wanted(Shape(24), 2, 128, WIDE, MANY, 900),
    "2-layers-2-threads-memory-limit": Wanted(Shape(2), 2, 256, WIDE, MANY, 450),
    "6-layers-1-thread": Wanted(Shape(6), 1, 128, SMALL, FEW),
}
SWEEP = """
name: {name}
engine: ollama
model: random
prompt: {{tokens: {wanted.tokens}}}
num_ctx: {contexts}
num_batch: {batches}
num_thread: {wanted.threads}
num_predict: 1
warmup: 1
repeats: 3
passes: {passes}
timeout: 60s
control: off
second_look: off
interim: off
"""
RUNNER = """#!/bin/sh
exec env MALLOC_ARENA_MAX=1 prlimit --as={limit} "$(dirname "$0")/llama-server.real" "$@"
"""


def limited(binary: Path, folder: Path, limit_mb: int) -> Path:
    """A copy of an Ollama whose llama-server may take so much address space."""
    copy = folder / "build"
    shutil.copytree(binary.parent.parent, copy, dirs_exist_ok=True)
    runner = copy / "lib" / "ollama" / "llama-server"
    runner.rename(runner.with_name("llama-server.real"))
    runner.write_text(RUNNER.format(limit=limit_mb * 1_000_000), "utf-8")
    runner.chmod(0o755)
    return copy / "bin" / "ollama"


def record(name: str, wanted: Wanted, passes: int, remark: str, folder: Path) -> tuple[Path, int]:
    """Measure one map and write its recording; its file, and how many cells were measured."""
    work = folder / "work" / name
    work.mkdir(parents=True)
    binary = _common.script_output("get_ollama", "--print")
    if wanted.limit_mb:
        binary = limited(binary, work, wanted.limit_mb)
    model = work / "random.gguf"
    _random_model.write(model, _common.script_output("get_model"), wanted.shape)
    with _common.ollama_server(binary, work / "server") as server:
        (work / "Modelfile").write_text(f"FROM {model}\n", "utf-8")
        server.command("create", "random", "-f", str(work / "Modelfile"))
        os.environ.update(server.environment())
        text = SWEEP.format(
            name=name, wanted=wanted, passes=passes, contexts=list(wanted.contexts), batches=list(wanted.batches)
        )
        (work / "sweep.yaml").write_text(text, "utf-8")
        spec = ollama_sweep.load(work / "sweep.yaml", host=server.host, ollama=str(server.binary))
        ollama_sweep.measure(spec, work / "sweeps.db", options=SessionOptions(no_pause=True))
    with Reader.open(work / "sweeps.db") as reader:
        recording = reader.recording(reader.sweep(name), f"{said(wanted)} {remark}".strip())
    path = folder / f"{name}.jsonl.gz"
    path.write_bytes(packed(written(recording)))
    measured = sum(bool(row["prompt_eval_rate"]) for row in ollama_sweep.rows(work / "sweeps.db", name))
    shutil.rmtree(work)
    return path, measured


def said(wanted: Wanted) -> str:
    """What was measured, in words."""
    shape = wanted.shape
    experts = f" of {shape.experts} experts, one of them used" if shape.experts > 1 else ""
    ends = f", llama-server limited to {wanted.limit_mb} MB of address space" if wanted.limit_mb else ""
    return f"Random weights, {shape.layers} layers{experts}, Q4_0; threads: {wanted.threads}{ends}."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the recordings go")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: all): {', '.join(MAPS)}")
    parser.add_argument("--passes", type=int, default=2, help="loads of each cell (default 2)")
    parser.add_argument("--remark", default="", help="what the recordings say of the machine beside its name")
    given = parser.parse_args()
    if unknown := set(given.names) - MAPS.keys():
        parser.error(f"no map is called {', '.join(sorted(unknown))}; there are {', '.join(MAPS)}")
    _common.head(parser)
    rows = []
    for name in given.names or MAPS:
        began = time.monotonic()
        path, measured = record(name, MAPS[name], given.passes, given.remark, given.folder.absolute())
        cells = len(MAPS[name].contexts) * len(MAPS[name].batches)
        rows.append([path.name, f"{measured} of {cells}", f"{time.monotonic() - began:.0f} s"])
        print(", ".join(rows[-1]), flush=True)
    print()
    _common.table(["recording", "cells with a rate", "took"], rows)


if __name__ == "__main__":
    main()
