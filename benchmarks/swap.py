"""The context swap against Ollama: the same cells by `ollama` and by `libllama`, in turn, on one server's library.

In every round each cell is measured by both, the one right after the other, and who comes first changes from cell to
cell. What counts is the ratio of each pair, and the seconds that a cell takes with everything that it needs.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import _common

if TYPE_CHECKING:
    from ollama_sweep.core.cell import Cell
    from ollama_sweep.engines.base import Engine

MODEL = "bench-base"
OLLAMA, SWAP = "ollama", "libllama"
WORDS = "Name the three largest rivers of the world and the seas that they flow into. "
WORDS_TOKENS = 16


@dataclass(frozen=True)
class Measured:
    """A cell by one engine: tokens of the prompt, tokens/s of reading and of writing, seconds with the load."""

    tokens: int
    prompt_rate: float
    eval_rate: float
    cell_s: float


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Swap: rates and seconds of the context swap against Ollama's.")
    parser.add_argument("--rounds", type=int, default=4, help="how often each cell is measured by both (default 4)")
    parser.add_argument("--num-ctx", type=int, nargs="+", default=[2048, 8192], metavar="N")
    parser.add_argument("--num-batch", type=int, nargs="+", default=[16, 64, 256], metavar="N")
    parser.add_argument("--tokens", type=int, default=940, help="length of the prompt, about (default 940)")
    parser.add_argument("--num-predict", type=int, default=16)
    parser.add_argument("--num-thread", type=int, default=0, help="0: as many as Ollama takes (default)")
    return parser, parser.parse_args()


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """The grid, row by row."""
    from ollama_sweep.core.cell import Cell

    threads = {"num_thread": options.num_thread} if options.num_thread else {}
    for num_ctx in options.num_ctx:
        for num_batch in options.num_batch:
            place = {"num_ctx": num_ctx, "num_batch": num_batch}
            given = {**place, **threads, "num_predict": options.num_predict}
            yield Cell(tuple(place.items()), MODEL, tuple(sorted(given.items())))


def measured(engine: Engine, cell: Cell, prompt: str) -> Measured:
    """One cell from its load to its last token."""
    started = time.perf_counter()
    engine.prepare(cell)
    found = engine.generate(cell, prompt, 600.0)
    seconds = time.perf_counter() - started
    count, writing_s = found.eval_count or 0, found.eval_duration_s or 0.0
    reading_s = found.prompt_eval_duration_s or 0.0
    cached = found.cached_count or 0
    tokens = found.prompt_eval_count or 0
    return Measured(tokens, (tokens - cached) / reading_s, (count - 1) / writing_s, seconds)


def measure(options: argparse.Namespace) -> dict[tuple[int, int], list[tuple[Measured, Measured]]]:
    """The pairs (Ollama, swap) of each cell."""
    from ollama_sweep import engines
    from ollama_sweep.engines.base import EngineSettings
    from ollama_sweep.plan import prompts

    binary, model = _common.script_output("get_ollama", "--print"), _common.script_output("get_model")
    found: dict[tuple[int, int], list[tuple[Measured, Measured]]] = defaultdict(list)
    text = WORDS * max(1, options.tokens // WORDS_TOKENS)
    with _common.temporary_folder() as folder, _common.ollama_server(binary, folder / "server") as server:
        (folder / "Modelfile").write_text(f"FROM {model}\n", "utf-8")
        server.command("create", MODEL, "-f", str(folder / "Modelfile"))
        settings = EngineSettings(host=f"http://{server.host}", ollama=str(server.binary), say=print)
        both = {name: engines.load(name, settings) for name in (OLLAMA, SWAP)}
        try:
            for engine in both.values():
                engine.describe()
                engine.count_tokens(MODEL, prompts.with_nonce(prompts.new_nonce(), text))
            for number in range(options.rounds):
                for place, cell in enumerate(cells(options)):
                    order = (OLLAMA, SWAP) if (number + place) % 2 else (SWAP, OLLAMA)
                    prompt = prompts.with_nonce(prompts.new_nonce(), text)
                    pair = {name: measured(both[name], cell, prompt) for name in order}
                    found[cell.num_ctx, cell.num_batch].append((pair[OLLAMA], pair[SWAP]))
        finally:
            for engine in both.values():
                engine.close()
    return found


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """`median (smallest to largest)`."""
    middle, least, most = (form.format(value) for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def row(words: str, pairs: Sequence[tuple[Measured, Measured]]) -> list[str]:
    """One line: both rates, the ratios of the pairs, the seconds of a cell."""
    prompt = [swap.prompt_rate / own.prompt_rate for own, swap in pairs]
    writing = [swap.eval_rate / own.eval_rate for own, swap in pairs]
    same = all(own.tokens == swap.tokens for own, swap in pairs)
    return [
        words,
        "yes" if same else "NO",
        f"{median(own.prompt_rate for own, _ in pairs):.0f}",
        f"{median(swap.prompt_rate for _, swap in pairs):.0f}",
        spread(prompt),
        spread(writing),
        f"{median(own.cell_s for own, _ in pairs):.2f}",
        f"{median(swap.cell_s for _, swap in pairs):.2f}",
    ]


def main() -> None:
    parser, options = parse_arguments()
    _common.head(parser)
    found = measure(options)
    print()
    columns = ("num_ctx × num_batch", "tokens equal", "Ollama, tokens/s", "swap, tokens/s", "swap / Ollama",
               "the same of writing", "Ollama, s a cell", "swap, s a cell")  # fmt: skip
    rows = [row(f"{num_ctx} × {num_batch}", pairs) for (num_ctx, num_batch), pairs in sorted(found.items())]
    _common.table(columns, [*rows, row("all", [pair for pairs in found.values() for pair in pairs])])


if __name__ == "__main__":
    main()
