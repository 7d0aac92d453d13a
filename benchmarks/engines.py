"""The same chat over the engines: Ollama by its command line, by HTTP and by its /v1, a bare llama-server, llama.cpp.

One model file, one num_ctx, num_batch and number of threads, temperature 0, the same questions. One engine after the
other, in several rounds, so that a machine that becomes slower does so for all of them. Before each engine nothing is
loaded. The counts of tokens must agree; for the times the table has the median of all rounds, and the smallest and the
largest.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import subprocess
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import _common

MODEL = "bench-base"
THREADS, NUM_CTX, NUM_BATCH = 2, 1024, 128
CHAT = """task: chat
warmup: 1
repeats: 3
tasks: {{chat: {{num_predict: {num_predict}, temperature: 0}}}}
"""
SIZES = f"num_ctx: [{NUM_CTX}]\nnum_batch: [{NUM_BATCH}]\nnum_thread: {THREADS}\n"
COUNTS = "select sum(prompt_eval_count), sum(eval_count) from runs where not warmup"
RATES = "select ttft_s, decode_tps, latency_s from results"


@dataclass(frozen=True)
class Chat:
    """What one sweep of the chat found: the tokens of all its answers, and medians of their times."""

    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    decode_tps: float
    latency_s: float


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Engines: one chat over each way to the same model.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each engine is measured (default 3)")
    parser.add_argument("--num-predict", type=int, default=32, help="the most tokens of an answer (default 32)")
    return parser, parser.parse_args()


def ways(server: _common.OllamaServer, bare: str, model: Path) -> dict[str, list[str]]:
    """The words of `run` for each way."""
    openai = ["bare.yaml", "--engine", "openai", "--model", MODEL, "--host"]
    ollama = ["--host", server.host, "--ollama", str(server.binary), "--model", MODEL]
    return {
        "ollama": ["sized.yaml", "--engine", "ollama", *ollama],
        "ollama_http": ["sized.yaml", "--engine", "ollama_http", *ollama],
        "openai, Ollama's /v1": [*openai, f"http://{server.host}/v1"],
        "openai, llama-server": [*openai, f"http://{bare}/v1"],
        "llamacpp": ["sized.yaml", "--engine", "llamacpp", "--model", str(model)],
    }


@contextlib.contextmanager
def llama_server(program: Path, model: Path, host: str, log: Path) -> Iterator[None]:
    """Ollama's own llama-server alone, with the sizes that Ollama's load has."""
    name, _, port = host.rpartition(":")
    words = ["--model", str(model), "--alias", MODEL, "--host", name, "--port", port, "-c", str(NUM_CTX), "-np", "1"]
    words += ["-b", str(NUM_BATCH), "-ub", str(NUM_BATCH), "-t", str(THREADS)]
    with log.open("wb") as output:
        child = subprocess.Popen([str(program), *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _common.START_S
        while not _is_ready(host):
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"`{program}` did not start:\n{log.read_text('utf-8', 'replace')[-1000:]}")
            time.sleep(0.05)
        yield
    finally:
        child.terminate()
        child.wait()


def _is_ready(host: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}/health", timeout=2):
            return True
    except OSError:
        return False


def chat(folder: Path, words: Sequence[str], env: Mapping[str, str]) -> Chat:
    """One sweep of one cell."""
    db = folder / "chat.db"
    db.unlink(missing_ok=True)
    _common.must(_common.timed([*_common.SWEEP, "run", *words, "--db", str(db)], folder=folder, env=env))
    with contextlib.closing(sqlite3.connect(db)) as connection:
        counts, (rates,) = connection.execute(COUNTS).fetchone(), connection.execute(RATES).fetchall()
    return Chat(*counts, *rates)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[Chat]]:
    """Every way in each round."""
    binary = _common.script_output("get_ollama", "--print")
    model = _common.script_output("get_model")
    text = CHAT.format(num_predict=options.num_predict)
    (folder / "bare.yaml").write_text(text, "utf-8")
    (folder / "sized.yaml").write_text(text + SIZES, "utf-8")
    found: dict[str, list[Chat]] = defaultdict(list)
    with _common.ollama_server(binary, folder / "server") as server:
        parameters = f"PARAMETER num_ctx {NUM_CTX}\nPARAMETER num_batch {NUM_BATCH}\nPARAMETER num_thread {THREADS}\n"
        (folder / "Modelfile").write_text(f"FROM {model}\n{parameters}", "utf-8")
        server.command("create", MODEL, "-f", str(folder / "Modelfile"))
        bare = f"127.0.0.1:{_common.free_port()}"
        for number in range(1, options.rounds + 1):
            for way, words in ways(server, bare, model).items():
                runner = binary.parent.parent / "lib" / "ollama" / "llama-server"
                alone = llama_server(runner, model, bare, folder / "bare.log")
                with alone if bare in " ".join(words) else contextlib.nullcontext():
                    found[way].append(chat(folder, words, server.environment()))
                server.command("stop", MODEL)
                last = found[way][-1]
                print(f"round {number}: {way}: {last.ttft_s * 1000:.0f} ms, {last.decode_tps:.1f} tokens/s", flush=True)
    return found


def spread(values: Sequence[float], form: str) -> str:
    """`median (smallest to largest)`."""
    middle, least, most = (form.format(value) for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def row(way: str, chats: Sequence[Chat]) -> list[str]:
    """One engine's line; several counts where the rounds did not agree."""
    return [
        way,
        "/".join(sorted({str(one.prompt_tokens) for one in chats})),
        "/".join(sorted({str(one.output_tokens) for one in chats})),
        spread([one.ttft_s * 1000 for one in chats], "{:.0f}"),
        spread([one.decode_tps for one in chats], "{:.1f}"),
        spread([one.latency_s for one in chats], "{:.2f}"),
    ]


def main() -> None:
    parser, options = parse_arguments()
    _common.head(parser)
    with _common.temporary_folder() as folder:
        found = measure(options, folder)
    print()
    columns = ("engine", "prompt tokens", "output tokens", "TTFT, ms", "decode, tokens/s", "latency, s")
    _common.table(columns, [row(way, chats) for way, chats in found.items()])


if __name__ == "__main__":
    main()
