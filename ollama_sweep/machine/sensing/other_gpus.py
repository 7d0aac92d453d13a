"""What Intel's and Apple's GPUs say to everybody. Much of it is for the administrator only, and is not asked for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ollama_sweep.core.errors import EngineStuck
from ollama_sweep.machine import process
from ollama_sweep.machine.sensing.amd_gpus import CARDS, cards_of
from ollama_sweep.machine.sensing.gauge import PATIENCE_WITH_PROGRAMS_S, SELDOM_S, Base, Gauge, line, number

INTEL = "0x8086"
_FREQUENCIES = ("gt/gt0/rps_act_freq_mhz", "gt_act_freq_mhz", "device/tile0/gt0/freq0/act_freq")
"""Where the drivers i915 (newer and older) and xe have the clock, in MHz."""
IOREG = ("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator")
IOREG_S = 10.0
_STATISTIC = re.compile(r'"(Device Utilization %|In use system memory)"=(\d+)')


class IntelCards(Base):
    """Energy, temperature and clock as the drivers i915 and xe show them; memory and load only root may see."""

    kind = "gpu"
    name = "the sensors of Intel's driver"

    def __init__(self, folder: Path = CARDS) -> None:
        self._cards = cards_of(folder, INTEL)

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        found = {name: _gauge(device) for name, device in self._cards.items()}
        return {name: gauge for name, gauge in found.items() if gauge != Gauge()}


def _gauge(device: Path) -> Gauge:
    chips = [chip for chip in sorted(device.glob("hwmon/hwmon*")) if line(chip / "name") in ("i915", "xe")]
    energies = [number(chip / "energy1_input", 1e-6) for chip in chips]
    heats = [number(file, 1e-3) for chip in chips for file in sorted(chip.glob("temp*_input"))]
    clocks = [number(device.parent / name) for name in _FREQUENCIES]
    return Gauge(
        energy_j=next((value for value in energies if value is not None), None),
        celsius=max((value for value in heats if value is not None), default=None),
        clock_mhz=next((value for value in clocks if value is not None), None),
    )


class AppleGpu(Base):
    """Load and memory of Apple's GPU as the system's registry shows them; power and heat only root may see."""

    every_s = SELDOM_S
    patience_s = PATIENCE_WITH_PROGRAMS_S
    kind = "gpu"
    name = "ioreg"

    def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
        program = shutil.which(IOREG[0])
        if program is None:
            return {}
        try:
            text = process.run([program, *IOREG[1:]], timeout_s=IOREG_S).stdout
        except (OSError, EngineStuck):
            return {}
        said = {name: int(value) for name, value in _STATISTIC.findall(text)}
        if not said:
            return {}
        busy = said.get("Device Utilization %")
        return {"apple": Gauge(used_bytes=said.get("In use system memory"),
                               busy_share=None if busy is None else busy / 100)}  # fmt: skip
