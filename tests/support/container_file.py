"""The container file as its instructions."""

from __future__ import annotations

from pathlib import Path

from ollama_fixture import ROOT

FILE: Path = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its words, lines joined, comments left out."""
    lines = [line for line in FILE.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [
        (word.upper(), " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in joined) if word
    ]


def copied() -> list[str]:
    """Files and folders that it takes from the checkout."""
    return [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
