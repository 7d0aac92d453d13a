"""The whole program inside the test's own process: the same commands as `python sweep.py …`, many times quicker."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import undrawn
from ollama_fixture import clean_environment
from sweep_runner import Ended, Sweep, write_fake_script

from ollama_sweep import cli
from ollama_sweep.results.plots import heatmap

WORDS = "one two three four five"
GRID: Mapping[str, Any] = {
    "model": "m",
    "prompt": {"text": WORDS},
    "num_ctx": [512, 1024],
    "num_batch": [2, 4],
    "engine": "fake",
    "warmup": 1,
    "repeats": 3,
    "control": "off",
    "second_look": "off",
}
"""Four cells whose prompt has nine tokens: nonce, five words and the fake engine's three of a template.

So many loads and runs each, whatever they say."""
PROMPT_TOKENS = 9


class Program(Sweep):
    """`program("run", config, …)` as a person calls it, with a fake engine whose work can be counted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.journal = folder / "journal.txt"
        self._script = folder / "fake.json"
        self.script()

    def script(self, **script: Any) -> None:
        """What the fake engine does from now on; the journal goes on."""
        write_fake_script(self._script, {"journal": str(self.journal), "noise": 0, **script})

    def environment(self) -> dict[str, str]:
        """What a child process needs to use the same script, and to write as it does for a person."""
        return {"OLLAMA_SWEEP_FAKE": str(self._script), "PYTHONUNBUFFERED": ""}

    def __call__(self, *words: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 300.0) -> Ended:
        environment = {**clean_environment(), **self.environment(), **(env or {})}
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(sys, "argv", ["sweep.py", *map(str, words)]),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.nullcontext() if self.draws else mock.patch.object(heatmap, "render", undrawn.pretend_to_draw),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())

    def grid(self, name: str = "grid", **keys: Any) -> Path:
        """A sweep file: GRID with these keys; None takes one away."""
        return self.config(name, **{key: value for key, value in {**GRID, **keys}.items() if value is not None})

    def asks(self, *items: Mapping[str, Any], **options: Any) -> Mapping[str, Any]:
        """The key `tasks` of a sweep with the task `items` that asks these."""
        (self.folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
        return {"items": {"data": "items.jsonl", **options}}

    def events(self, kind: str) -> list[str]:
        """What the fake engine's journal has of a kind (count, prepare, generate, release, clear), in order."""
        lines = self.journal.read_text("utf-8").splitlines() if self.journal.exists() else []
        return [what for event, _, what in (line.partition("\t") for line in lines) if event == kind]

    def measured(self) -> Counter[str]:
        """How many generations each cell had, over all runs so far."""
        return Counter(self.events("generate"))

    def files(self) -> set[str]:
        """Everything in the working directory, without what the test itself wrote."""
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return {name for name in found if not name.startswith(("output-", "fake.json"))}


def label(num_ctx: int, num_batch: int) -> str:
    """A cell's name in the journal and in the fake engine's script."""
    return f"num_ctx {num_ctx}, num_batch {num_batch}"


def json_of(ended: Ended) -> Any:
    """What a command printed with --json."""
    return json.loads(ended.must().stdout)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """The program in a folder of its own."""
    made = Program(tmp_path)
    yield made
    made.close()
