"""The programs of others that read what `export` writes: llama.cpp's script, benchstat."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ollama_fixture import clean_environment, script_output, skip_outside_ci

from ollama_sweep.machine.files import cache_folder

BENCHSTAT = "golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da"


def compare_llama_bench(folder: Path, *words: str) -> str:
    """What the script says of the SQLite file of its usual name in a folder that is no git repository."""
    script = script_output("get_ollama", "--compare-script")
    return _said([sys.executable, str(script), *words], folder)


def benchstat(folder: Path, *words: str) -> str:
    """What it says of the files of a folder. It is installed into the cache folder where Go is, once."""
    return _said([str(_benchstat()), *words], folder)


def _benchstat() -> Path:
    folder = cache_folder() / f"benchstat-{BENCHSTAT.rpartition('@')[2]}"
    if not (folder / "benchstat").exists():
        private = cache_folder() / "tools" / "bin" / "go"
        go = shutil.which("go") or (str(private) if private.exists() else None)
        if go is None:
            skip_outside_ci("no Go to install benchstat with")
        done = subprocess.run(
            [go, "install", BENCHSTAT],
            check=False, env={**os.environ, "GOBIN": str(folder)}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            skip_outside_ci(f"benchstat cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return folder / "benchstat"


def _said(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, check=False, cwd=folder, env=clean_environment(), capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
