"""What this computer is, as `device_info` of `report_<host>.json` has it, on Linux and macOS.

Every fact has a chain of sources, the most telling one first; what no source knows is None. `fastfetch` is asked
where it is installed.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import EngineStuck
from ollama_sweep.machine import amd, computer, process
from ollama_sweep.machine.computer import Gpu, processor_name

ASK_S = 10.0
CUSTOM_PC = "custom_pc"
SHARED = "shared with system RAM"
_GIB = 2**30
AMD_GPU = "AMD GPU"
_AMD_VENDOR = "0x1002"
_CARD_FIELDS = frozenset({"card series", "card model", "device name", "vram total memory (b)"})
_NO_NAME = re.compile(r"(?i)n/?a|none|null|unknown|not (supported|available)|unable to .*|0x[0-9a-f]+|\[.*\]")
_SAYS_NOTHING = re.compile(
    r"(?i)to be filled|o\.?e\.?m|system product|system version|default string|not applicable|not specified|"
    r"none|unknown|invalid|n/a|standard pc|virtual machine|all series"
)

Ask = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class DeviceInfo:
    """`device` is cuda, rocm, mps or cpu; `gpu_memory_gb` a number of GiB, or words where the GPU shares the RAM.

    `machine` is the line that a sweep keeps of its computer; it is in no file.
    """

    platform: str
    device: str
    ram_gb: float
    processor: str
    gpu_name: str | None = None
    gpu_memory_gb: float | str | None = None
    host: str = CUSTOM_PC
    machine: str = ""

    def as_dict(self) -> dict[str, object]:
        """The fields in the order of the file."""
        return {
            "platform": self.platform,
            "device": self.device,
            "ram_gb": self.ram_gb,
            "processor": self.processor,
            "gpu_name": self.gpu_name,
            "gpu_memory_gb": self.gpu_memory_gb,
            "host": self.host,
        }


@dataclass(frozen=True)
class Graphics:
    """A GPU: its name with the number of equal ones, its memory, and what programs compute on it with."""

    name: str
    memory_gb: float | str | None
    device: str


@dataclass(frozen=True)
class Computer:
    """Where facts come from. `ask` runs a command and gives its output, "" where that fails; `root` holds /sys."""

    system: str = field(default_factory=platform.system)
    architecture: str = field(default_factory=platform.machine)
    platform: str = field(default_factory=platform.platform)
    root: Path = Path("/")
    ask: Ask = field(default_factory=lambda: ask)
    gpus: Callable[[], tuple[Gpu, ...]] = computer.gpus
    processor: str = ""
    ram_bytes: int = 0
    machine: Callable[[], str] = lambda: computer.machine().line()

    @property
    def is_apple_silicon(self) -> bool:
        return self.system == "Darwin" and self.architecture == "arm64"


def ask(command: Sequence[str]) -> str:
    """What a command prints; "" where it is not installed, fails or hangs."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = process.run([program, *command[1:]], timeout_s=ASK_S)
    except (OSError, EngineStuck):
        return ""
    is_whole = done.returncode == 0 or _parsed(done.stdout) is not None  # one card of several may have failed
    return done.stdout if is_whole else ""


def device_info(computer: Computer | None = None) -> DeviceInfo:
    """Look at this computer. Never raises for a source that is missing or says nonsense."""
    computer = computer or Computer()
    fetched = _fastfetch(computer)
    graphics = next((found for found in _graphics(computer, fetched) if found), None)
    return DeviceInfo(
        platform=computer.platform,
        device=graphics.device if graphics else "cpu",
        ram_gb=round((computer.ram_bytes or _ram_bytes()) / _GIB, 2),
        processor=computer.processor or _processor(computer, fetched),
        gpu_name=graphics.name if graphics else None,
        gpu_memory_gb=graphics.memory_gb if graphics else None,
        host=next((name for name in _hosts(computer, fetched) if name), CUSTOM_PC),
        machine=computer.machine(),
    )


def _ram_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _processor(computer: Computer, fetched: dict[str, Any]) -> str:
    if computer.system == "Darwin":
        named = computer.ask(("sysctl", "-n", "machdep.cpu.brand_string")).strip()
        if named:
            return named
    return processor_name() if computer.system == platform.system() else _text(fetched.get("CPU"), "cpu")


# -- the model of the computer ---------------------------------------------------------------------------------------


def _hosts(computer: Computer, fetched: dict[str, Any]) -> Iterator[str]:
    """Names of the computer's model, the best first; those that say nothing are empty."""
    if computer.system == "Darwin":
        yield computer.ask(("sysctl", "-n", "hw.model")).strip()
        yield _text(fetched.get("Host"), "family")
    yield _telling(_text(fetched.get("Host"), "name"))
    if computer.system == "Linux":
        for source in ("sys/devices/virtual/dmi/id/product_name", "sys/class/dmi/id/product_name",
                       "proc/device-tree/model"):  # fmt: skip
            yield _telling(_line(computer.root / source))


def _telling(name: str) -> str:
    """A name, or "" for what a board's maker left in the field."""
    name = " ".join(name.split())
    return "" if _SAYS_NOTHING.search(name) else name[:80]


# -- GPUs ------------------------------------------------------------------------------------------------------------


def _graphics(computer: Computer, fetched: dict[str, Any]) -> Iterator[Graphics | None]:
    yield _nvidia(computer)
    if computer.system == "Linux":
        yield _amd_by_tool(computer)
        yield _amd_by_driver(computer)
    if computer.system == "Darwin":
        yield _apple(computer, fetched)
    yield _fetched_gpu(fetched)


def _nvidia(computer: Computer) -> Graphics | None:
    found = computer.gpus()
    if not found:
        return None
    return Graphics(_together([gpu.name for gpu in found]), _sum_gib([gpu.memory_bytes for gpu in found]), "cuda")


def _amd_by_tool(computer: Computer) -> Graphics | None:
    """Of `rocm-smi`: {"card0": {"Card Series": …, "VRAM Total Memory (B)": …}}; else of `amd-smi`, which follows it."""
    text = computer.ask(("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json"))
    cards = [card for name, card in _json(text).items() if name.startswith("card") and isinstance(card, dict)]
    cards = cards or [card for card in _dicts(text) if _CARD_FIELDS & {str(name).lower() for name in card}]
    if not cards:
        return _amd_by_new_tool(computer)
    fields = [{str(name).lower(): value for name, value in card.items()} for card in cards]
    names = [_first(card, "card series", "card model", "device name") or AMD_GPU for card in fields]
    sizes = [_first(card, "vram total memory (b)") for card in fields]
    return Graphics(_together(names), _sum_gib([int(size) if size.isdigit() else None for size in sizes]), "rocm")


def _amd_by_new_tool(computer: Computer) -> Graphics | None:
    """Of `amd-smi`: [{"asic": {"market_name": …}, "vram": {"size": {"value": 24560, "unit": "MB"}}}]."""
    text = computer.ask(("amd-smi", "static", "--asic", "--vram", "--json"))
    cards = [card for card in _dicts(text) if isinstance(card.get("asic"), dict)]
    if not cards:
        return None
    names = [_first(card["asic"], "market_name") or AMD_GPU for card in cards]
    return Graphics(_together(names), _sum_gib([_amd_size(card.get("vram")) for card in cards]), "rocm")


def _amd_size(vram: object) -> int | None:
    """Bytes of {"size": {"value": 24560, "unit": "MB"}}, of {"size": "24560 MB"}, or of {"size_mb": 24560}."""
    size = vram.get("size", vram.get("size_mb")) if isinstance(vram, dict) else None
    text = f"{size.get('value')} {size.get('unit', 'MB')}" if isinstance(size, dict) else str(size)
    found = re.fullmatch(r"(\d+)(?: ?([KMG]?)i?B)?", text.strip())
    return int(found[1]) * {"K": 2**10, "M": 2**20, "G": 2**30, "": 1, None: 2**20}[found[2]] if found else None


def _first(card: dict[str, object], *names: str) -> str:
    """The first of these fields that says something; a tool writes `N/A` or a number of the kind (0x744c) as well."""
    said = [" ".join(str(card[name]).split()) for name in names if card.get(name)]
    return next((text for text in said if not _NO_NAME.fullmatch(text)), "")


def _amd_by_driver(computer: Computer) -> Graphics | None:
    """What the kernel's driver says of AMD cards; `rocm` only where programs can compute on them (/dev/kfd)."""
    names: list[str] = []
    sizes: list[int | None] = []
    for device in sorted(computer.root.glob("sys/class/drm/card[0-9]*/device")):
        if _line(device / "vendor") == _AMD_VENDOR and "-" not in device.parent.name:
            size = _line(device / "mem_info_vram_total")
            names.append(_line(device / "product_name") or AMD_GPU)
            sizes.append(int(size) if size.isdigit() else None)
    if not names:
        return None
    return Graphics(_together(names), _sum_gib(sizes), "rocm" if (computer.root / "dev/kfd").exists() else "cpu")


def _apple(computer: Computer, fetched: dict[str, Any]) -> Graphics | None:
    """`Apple M4 Pro (20 cores)`: of system_profiler, else of fastfetch."""
    answer = _json(computer.ask(("system_profiler", "SPDisplaysDataType", "-json")))
    cards = answer.get("SPDisplaysDataType")
    for card in cards if isinstance(cards, list) else []:
        name, cores = _text(card, "sppci_model"), _text(card, "sppci_cores")
        if name:
            return _apple_gpu(computer, name, cores, _text(card, "spdisplays_vram"))
    for gpu in _gpus_of(fetched):
        return _apple_gpu(computer, _text(gpu, "name"), _text(gpu, "coreCount"), "")
    return _apple_gpu(computer, "Apple GPU", "", "") if computer.is_apple_silicon else None


def _apple_gpu(computer: Computer, name: str, cores: str, memory: str) -> Graphics:
    if computer.is_apple_silicon:
        return Graphics(f"{name} ({cores} cores)" if cores.isdigit() else name, SHARED, "mps")
    size = re.match(r"([\d.]+) (GB|MB)", memory)
    gigabytes = float(size[1]) / (1 if size[2] == "GB" else 1024) if size else None
    return Graphics(name, gigabytes, "cpu")


def _fetched_gpu(fetched: dict[str, Any]) -> Graphics | None:
    """A GPU that only fastfetch knows: nothing here computes on it as far as is known."""
    found = _gpus_of(fetched)
    if not found:
        return None
    memory = found[0].get("memory")
    dedicated = memory.get("dedicated") if isinstance(memory, dict) else None
    total = _text(dedicated, "total")
    is_shared = _text(found[0], "type") == "Integrated"
    size = SHARED if is_shared else _gib(int(total)) if total.isdigit() and int(total) else None
    return Graphics(_together([_text(gpu, "name") for gpu in found]), size, "cpu")


# -- sources ---------------------------------------------------------------------------------------------------------


def _fastfetch(computer: Computer) -> dict[str, Any]:
    """What fastfetch says of Host, CPU and GPU, by module; empty where it is not installed."""
    answer = _parsed(computer.ask(("fastfetch", "--logo", "none", "--structure", "Host:CPU:GPU", "--format", "json")))
    if not isinstance(answer, list):
        return {}
    return {str(entry.get("type")): entry.get("result") for entry in answer if isinstance(entry, dict)}


def _gpus_of(fetched: dict[str, Any]) -> list[dict[str, Any]]:
    found = fetched.get("GPU")
    return [gpu for gpu in found if isinstance(gpu, dict) and gpu.get("name")] if isinstance(found, list) else []


def _together(names: Sequence[str]) -> str:
    """`2 x NVIDIA L4, AMD GPU`."""
    counted = {name: list(names).count(name) for name in names}
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counted.items())


def _gib(size: int) -> float:
    return round(size / _GIB, 2)


def _sum_gib(sizes: Sequence[int | None]) -> float | None:
    """All of them together; None where one is not known, or none has any."""
    known = [size for size in sizes if size is not None]
    total = sum(known)
    return _gib(total) if total and len(known) == len(sizes) else None


def _line(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def _json(text: str) -> dict[str, Any]:
    found = _parsed(text, dict)
    return found if isinstance(found, dict) else {}


def _parsed(text: str, kind: type | tuple[type, ...] = (dict, list)) -> object:
    """The JSON of a text, the longest piece of this kind; None where there is none."""
    found = [piece for piece in amd.pieces(text) if isinstance(piece[1], kind)]
    return max(found, key=lambda piece: piece[0])[1] if found else None


def _dicts(text: str) -> list[dict[str, Any]]:
    """Every object in what is left of a JSON text that may be cut off."""
    return [one for _, piece in amd.pieces(text) for one in amd.objects(piece)]


def _text(holder: object, name: str) -> str:
    """A field as text; "" where there is none."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return "" if value is None else str(value).strip()
