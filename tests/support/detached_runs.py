"""Sweeps in the background: how they are started, and when they have ended."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
from ollama_fixture import until
from sweep_runner import Ended
from sweeping import Program


def call(program: Program, *words: str | Path, **environment: str) -> Ended:
    """A command in a process of its own, as in another terminal."""
    return program.start(*words, env={**program.environment(), **environment}).wait()


def detached(program: Program, *words: str | Path, **environment: str) -> psutil.Process:
    """The process of a sweep that was started with --detach and has registered."""
    said = json.loads(call(program, "run", *words, "--detach", "--json", **environment).must().stdout)
    return psutil.Process(said["pid"])


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def ended(process: psutil.Process) -> None:
    until("the sweep ends", lambda: is_gone(process))
