"""What the processor is called, of copies of what Linux says on boards that do not name it as a PC does."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from ollama_sweep.machine.processor import lscpu, processor_name

PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

Revision\t: c04170
Serial\t\t: 0123456789abcdef
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
GB10 = "CPU implementer\t: 0x41\nCPU part\t: 0xd85\n\nCPU implementer\t: 0x41\nCPU part\t: 0xd87\n"
LSCPU_GB10 = """Architecture:             aarch64
Vendor ID:                ARM
  Model name:             Cortex-X925
    Model:                1
  Model name:             Cortex-A725
"""
OLD = "model name\t: ARMv7 Processor rev 4 (v7l)\nHardware\t: BCM2835\n"
ARM = platform.machine()


@pytest.mark.parametrize(
    ("cpuinfo", "lscpu_says", "board", "name"),
    [
        ("model name\t: AMD EPYC  7302\n", "Model name: never asked", "", "AMD EPYC 7302"),
        (PI_5, "Vendor ID: ARM\nModel name: Cortex-A76\n", "", "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"),
        (PI_5, "", "Raspberry Pi 5 Model B Rev 1.0\0", "Raspberry Pi 5 Model B Rev 1.0"),
        (PI_5, "", "", "Raspberry Pi 5 Model B Rev 1.0"),
        (GB10, LSCPU_GB10, "", "Cortex-X925, Cortex-A725"),
        (GB10, "Vendor ID: ARM\nModel name: -\n", "", f"ARM {ARM} (implementer 0x41, part 0xd85, 0xd87)"),
        (GB10, "", "", f"{ARM} (implementer 0x41, part 0xd85, 0xd87)"),
        (OLD, "Model name: Cortex-A53\n", "", "Cortex-A53 (BCM2835)"),
        (OLD, "", "", "BCM2835"),
        ("model name\t: ARMv7 Processor rev 4 (v7l)\n", "", "", "ARMv7 Processor rev 4 (v7l)"),
        ("isa\t: rv64imafdc\nuarch\t: sifive,u74-mc\n", "", "StarFive VisionFive 2\0",
         "sifive,u74-mc (StarFive VisionFive 2)"),
        ("cpu\t\t: POWER9, altivec supported\nmachine\t\t: PowerNV 8335-GTH\n", "", "",
         "POWER9, altivec supported (PowerNV 8335-GTH)"),
        ("", "", "", platform.processor() or ARM),
    ],
)  # fmt: skip
def test_the_processor_by_the_best_source_there_is(
    tmp_path: Path, cpuinfo: str, lscpu_says: str, board: str, name: str
) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    if cpuinfo:
        (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    if board:
        (tmp_path / "proc/device-tree/model").write_text(board)
    assert processor_name(tmp_path, lambda: lscpu_says) == name


def test_lscpu_is_asked_in_english_and_may_be_absent_or_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    program = tmp_path / "lscpu"
    program.write_text('#!/bin/sh\necho "Model name: $LC_ALL"\n')
    program.chmod(0o755)
    assert lscpu() == "Model name: C\n"
    program.write_text("#!/bin/sh\necho half\nexit 1\n")
    assert lscpu() == ""
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert lscpu() == ""
