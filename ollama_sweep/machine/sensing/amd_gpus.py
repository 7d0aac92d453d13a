"""AMD's GPUs: by the kernel's driver, which everybody may read, else by AMD's tools."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ollama_sweep.machine import amd, neighbours
from ollama_sweep.machine.sensing.gauge import (
    EVERY_S,
    PATIENCE_WITH_PROGRAMS_S,
    SELDOM_S,
    Base,
    Gauge,
    line,
    number,
)

CARDS = Path("/sys/class/drm")
TOPOLOGY = Path("/sys/class/kfd/kfd/topology/nodes")
VENDOR = "0x1002"
TOOLS = (("amd-smi", "metric", "--json"),
         ("rocm-smi", "--showpower", "--showtemp", "--showuse", "--showmeminfo", "vram", "--json"))  # fmt: skip
_UNITS = {"KB": 1e3, "KIB": 2**10, "MB": 2**20, "MIB": 2**20, "GB": 2**30, "GIB": 2**30, "B": 1.0, "": 2**20}
"""AMD's tools write MB and mean MiB."""
_VALUE = re.compile(r"(-?\d+(?:\.\d+)?) ?([A-Za-z°%]*)")


class AmdPrograms(Base):
    """Who computes on AMD's GPUs, of the kernel's driver, else of AMD's tools."""

    patience_s = PATIENCE_WITH_PROGRAMS_S
    kind = "gpu"
    name = "AMD's driver"

    def __init__(self) -> None:
        self.every_s = EVERY_S if amd.KFD_PROCESSES.is_dir() else SELDOM_S

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        programs = amd.programs()
        if programs is None:
            return {}
        return {"amd": Gauge(), **{f"amd {gpu}": Gauge(is_shared=neighbours.is_shared(found, pids))
                                   for gpu, found in programs.items()}}  # fmt: skip


class AmdCards(Base):
    """What the kernel's driver says of each card: power, memory, load, temperature, clock.

    Where the driver knows on which cards the engine computes, only these count; else all of them, but with `only_named`
    none: then other GPUs are the ones that are measured.
    """

    kind = "gpu"
    name = "the sensors of AMD's driver"

    def __init__(
        self, folder: Path = CARDS, *, programs: Path | None = None, topology: Path = TOPOLOGY, only_named: bool = False
    ) -> None:
        self._cards = cards_of(folder, VENDOR)
        self._programs, self._topology = programs or amd.KFD_PROCESSES, topology
        self._only_named = only_named

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        named = self._of_the_engine(pids) if pids and self._programs.is_dir() else []
        if self._only_named and not named:
            return {"amd": Gauge()} if self._cards else {}
        found = {name: _gauge(device) for name, device in self._cards.items() if not named or name in named}
        return {name: gauge for name, gauge in found.items() if gauge != Gauge()}

    def _of_the_engine(self, pids: frozenset[int]) -> list[str]:
        """The cards with programs of the engine, found by where they sit on the bus."""
        used = {gpu for gpu, programs in amd.programs_of(self._programs).items() if programs & pids}
        places = {place for node in self._topology.glob("*") if line(node / "gpu_id") in used
                  if (place := _place(line(node / "properties")))} if used else set()  # fmt: skip
        return [name for name, device in self._cards.items() if device.resolve().name in places]


def cards_of(folder: Path, vendor: str) -> dict[str, Path]:
    """The cards of a maker: name -> the folder of the device; outputs of a card (`card0-DP-1`) are none."""
    devices = {card.name: card / "device" for card in sorted(folder.glob("card[0-9]*")) if "-" not in card.name}
    return {name: device for name, device in devices.items() if line(device / "vendor") == vendor}


def _place(properties: str) -> str:
    """Where a GPU sits, as its device's folder is called: `0000:63:00.0`; "" where that is not said."""
    found = dict(re.findall(r"^(location_id|domain) (\d+)$", properties, re.MULTILINE))
    if "location_id" not in found:
        return ""
    at = int(found["location_id"])
    return f"{int(found.get('domain', 0)):04x}:{at >> 8 & 0xFF:02x}:{at >> 3 & 0x1F:02x}.{at & 7:x}"


def _gauge(device: Path) -> Gauge:
    hwmon = next(iter(sorted(device.glob("hwmon/hwmon*"))), device / "none")
    power_w = number(hwmon / "power1_average", 1e-6)
    used, busy = number(device / "mem_info_vram_used"), number(device / "gpu_busy_percent", 0.01)
    return Gauge(
        power_w=number(hwmon / "power1_input", 1e-6) if power_w is None else power_w,
        used_bytes=None if used is None else int(used),
        busy_share=busy,
        celsius=number(hwmon / "temp1_input", 1e-3),
        clock_mhz=number(hwmon / "freq1_input", 1e-6),
    )


class AmdTool(Base):
    """The same by AMD's tools, seldom, because each call starts a program."""

    every_s = SELDOM_S
    patience_s = PATIENCE_WITH_PROGRAMS_S
    kind = "gpu"
    name = "AMD's tool"

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        for command in TOOLS:
            answers = [piece for _, piece in amd.pieces(amd.ask(command))]
            found = dict(_of_tool(one for answer in answers for one in amd.objects(answer)))
            if found:
                return found
        return {}


def _of_tool(answers: Iterator[dict[str, Any]]) -> Iterator[tuple[str, Gauge]]:
    """Of {"gpu": 0, "usage": {"gfx_activity": {"value": 5, "unit": "%"}}}, or of {"card0": {"GPU use (%)": "5"}}."""
    for one in answers:
        if "gpu" in one and any(isinstance(one.get(name), dict) for name in ("power", "usage", "temperature")):
            yield f"amd {one['gpu']}", _of_amd_smi(one)
        for name, card in one.items():
            if re.fullmatch(r"card\d+", str(name)) and isinstance(card, dict):
                yield str(name), _of_rocm_smi({str(key).lower(): value for key, value in card.items()})


def _of_amd_smi(card: Mapping[str, Any]) -> Gauge:
    temperatures, memory = _inside(card, "temperature"), _inside(card, "mem_usage")
    busy, used = _value(_inside(card, "usage").get("gfx_activity")), _value(memory.get("used_vram"), in_bytes=True)
    celsius = [_value(temperatures.get(name)) for name in ("edge", "hotspot")]
    return Gauge(
        power_w=_value(_inside(card, "power").get("socket_power")),
        used_bytes=None if used is None else int(used),
        busy_share=None if busy is None else busy / 100,
        celsius=next((value for value in celsius if value is not None), None),
        clock_mhz=_value(_inside(_inside(card, "clock"), "gfx_0").get("clk")),
    )


def _of_rocm_smi(card: Mapping[str, Any]) -> Gauge:
    def of(*starts: str) -> float | None:
        return next((value for name, text in card.items() if name.startswith(starts)
                     and (value := _value(text)) is not None), None)  # fmt: skip

    busy, used = of("gpu use"), of("vram total used memory")
    return Gauge(
        power_w=of("average graphics package power", "current socket graphics package power"),
        used_bytes=None if used is None else int(used),
        busy_share=None if busy is None else busy / 100,
        celsius=of("temperature (sensor edge)", "temperature (sensor junction)"),
    )


def _inside(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = card.get(name)
    return found if isinstance(found, dict) else {}


def _value(written: object, *, in_bytes: bool = False) -> float | None:
    """Of {"value": 300, "unit": "MB"}, of "300 MB", or of 300; None for `N/A`."""
    if isinstance(written, dict):
        written = f"{written.get('value')} {written.get('unit', '')}"
    found = _VALUE.fullmatch(str(written).strip())
    if not found:
        return None
    scale = 1.0
    if in_bytes:
        with contextlib.suppress(KeyError):
            scale = _UNITS[found[2].upper()]
    return float(found[1]) * scale
