"""What the processor is called. Linux on ARM does not say it as it does on a PC, so further sources are asked."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ollama_sweep.core.errors import EngineStuck
from ollama_sweep.machine import process

LSCPU_S = 5.0
_SAYS_NOTHING = re.compile(r"(?i)-?|unknown|n/?a|0|(armv\d\S*|aarch64) processor( rev.*)?")
"""Names of ARM's kernels that name the instruction set only."""


def lscpu() -> str:
    """What `lscpu` prints, in English; "" where it is absent, fails or hangs."""
    program = shutil.which("lscpu")
    if program is None:
        return ""
    try:
        done = process.run([program], timeout_s=LSCPU_S, env={**os.environ, "LC_ALL": "C"})
    except (OSError, EngineStuck):
        return ""
    return done.stdout if done.returncode == 0 else ""


def processor_name(root: Path = Path("/"), ask: Callable[[], str] = lscpu) -> str:
    """The processor as the system names it: `AMD EPYC 7302`, `Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)`.

    Of /proc/cpuinfo; else of lscpu, which knows ARM's numbers of makers and parts, with the board's own name; else of
    whatever /proc/cpuinfo says. `root` holds /proc.
    """
    fields = _fields(_text(root / "proc/cpuinfo"))
    if name := _telling(fields, "model name"):
        return name
    if fields:
        seen = _fields(ask())
        board = _one_line(_text(root / "proc/device-tree/model")) or _telling(fields, "Model", "Hardware", "machine")
        core = ", ".join(_all_telling(seen, "Model name")) or _telling(fields, "cpu model", "cpu", "uarch")
        if core and board and board != core:
            return f"{core} ({board})"
        if core or board:
            return core or board
        if kind := _by_numbers(fields, _telling(seen, "Vendor ID")):
            return kind
    return next(iter(fields.get("model name", ())), "") or platform.processor() or platform.machine()


def _by_numbers(fields: Mapping[str, list[str]], maker: str) -> str:
    """`ARM aarch64 (implementer 0x41, part 0xd4f)`: no name, but another one for each kind of core."""
    makers, parts = (", ".join(dict.fromkeys(fields.get(f"CPU {name}", ()))) for name in ("implementer", "part"))
    if not (makers and parts):
        return ""
    return " ".join(filter(None, [maker, platform.machine(), f"(implementer {makers}, part {parts})"]))


def _fields(text: str) -> dict[str, list[str]]:
    """The lines `name : value` of a text, the different values of each name in their order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and (value := _one_line(value)) and value not in found.setdefault(name.strip(), []):
            found[name.strip()].append(value)
    return found


def _all_telling(fields: Mapping[str, list[str]], name: str) -> list[str]:
    return [value for value in fields.get(name, ()) if not _SAYS_NOTHING.fullmatch(value)]


def _telling(fields: Mapping[str, list[str]], *names: str) -> str:
    return next((value for name in names for value in _all_telling(fields, name)), "")


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def computing_cores(root: Path = Path("/")) -> int:
    """How many threads llama-server takes by itself: one for each core, on Intel's hybrids for each large one.

    As common_cpu_get_num_math of llama.cpp counts them. `root` holds /sys.
    """
    large = _listed(_text(root / "sys/devices/cpu_core/cpus"))
    cores = {
        _text(place / "topology/thread_siblings")
        for place in (root / "sys/devices/system/cpu").glob("cpu[0-9]*")
        if not large or int(place.name.removeprefix("cpu")) in large
    } - {""}
    if cores:
        return len(cores)
    count = os.cpu_count() or 1
    return count if count <= 4 else count // 2


def _listed(text: str) -> set[int]:
    """`0-7,16` as numbers."""
    parts = [part.partition("-") for part in text.strip().split(",") if part.strip()]
    return {number for first, _, last in parts for number in range(int(first), int(last or first) + 1)}


def cores_here(root: Path = Path("/")) -> list[tuple[int, ...]]:
    """The cores that this process may use, each with the numbers of its threads; in their order. `root` holds /sys.

    Where the system does not say which threads share a core, each is one by itself.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    found: dict[str, list[int]] = {}
    for number in allowed:
        siblings = _text(root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").strip()
        found.setdefault(siblings or str(number), []).append(number)
    return [tuple(threads) for threads in found.values()]


def keep_to(processors: Sequence[int]) -> None:
    """This process and what it starts from now on uses these processors only. Raises OSError where it may not."""
    if processors and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors)
