"""What AMD's driver and its tools (`amd-smi`, `rocm-smi`) say: the programs that compute, and JSON among warnings."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import EngineStuck
from ollama_sweep.machine import process

KFD_PROCESSES = Path("/sys/class/kfd/kfd/proc")
TOOL_S = 10.0
MOST_BEGINNINGS = 1000
TOOLS = (("amd-smi", "process", "--json"), ("rocm-smi", "--showpids", "--json"))
_BEGINS = re.compile(r"[\[{]")
_PID = re.compile(r"PID ?(\d+)")
_ANY = "0"


def can_tell() -> bool:
    """Whether somebody may know the programs; nothing is asked yet."""
    return KFD_PROCESSES.is_dir() or any(is_there(command[0]) for command in TOOLS)


def programs() -> dict[str, frozenset[int]] | None:
    """The ids of the programs that compute on each GPU, by the driver's number of it; None where nobody says.

    Of the kernel's driver where it shows them, else of AMD's tools.
    """
    return programs_of(KFD_PROCESSES) if KFD_PROCESSES.is_dir() else _by_tools()


def is_there(program: str) -> bool:
    """Whether one of the tools is installed."""
    return shutil.which(program) is not None


def programs_of(folder: Path) -> dict[str, frozenset[int]]:
    """Programs with a queue on a GPU; one that has only opened the device has none."""
    found: dict[str, set[int]] = {}
    for program in folder.iterdir():
        if program.name.isdigit():
            for queue in program.glob("queues/*/gpuid"):
                found.setdefault(_line(queue), set()).add(int(program.name))
    return {gpu: frozenset(pids) for gpu, pids in found.items()}


def _by_tools() -> dict[str, frozenset[int]] | None:
    for command in TOOLS:
        text = ask(command)
        found = _of_tool([piece for _, piece in pieces(text)])
        if found or "No running processes" in text or "No KFD PIDs" in text:
            return {gpu: frozenset(pids) for gpu, pids in found.items()}
    return None


def _of_tool(answers: Sequence[object]) -> dict[str, set[int]]:
    """Of [{"gpu": 0, "process_list": [{"process_info": {"pid": 7}}]}], or of {"system": {"PID7": "python3, 1, …"}}."""
    found: dict[str, set[int]] = {}
    for answer in answers:
        for one in objects(answer):
            if "process_list" in one:
                pids = {int(entry["pid"]) for entry in objects(one) if str(entry.get("pid", "")).isdigit()}
                found.setdefault(str(one.get("gpu", _ANY)), set()).update(pids)
            named = {int(match[1]) for name in one if (match := _PID.fullmatch(str(name)))}
            if named:
                found.setdefault(_ANY, set()).update(named)
    return found


def ask(command: Sequence[str]) -> str:
    """What a tool prints, its warnings included; "" where it is absent or hangs."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        return process.run([program, *command[1:]], timeout_s=TOOL_S).stdout
    except (OSError, EngineStuck):
        return ""


def pieces(text: str) -> Iterator[tuple[int, Any]]:
    """Every object or list of JSON in a text, with its length in characters.

    Tools write warnings before and after their JSON, and of one that was cut off the inner pieces are left.
    """
    decoder, at = json.JSONDecoder(), 0
    for _ in range(MOST_BEGINNINGS):
        begin = _BEGINS.search(text, at)
        if begin is None:
            return
        try:
            found, at = decoder.raw_decode(text, begin.start())
            yield at - begin.start(), found
        except (ValueError, RecursionError):
            at = begin.end()


def objects(answer: object) -> Iterator[dict[str, Any]]:
    """Every object in an answer, the outer ones first."""
    if isinstance(answer, dict):
        yield answer
    inner = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    for value in inner:
        yield from objects(value)


def _line(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
