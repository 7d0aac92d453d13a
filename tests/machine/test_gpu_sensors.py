"""GPUs of AMD, Intel and Apple: folders and programs as their drivers have them, made here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ollama_sweep.machine.sensing import amd_gpus, other_gpus
from ollama_sweep.machine.sensing.amd_gpus import AmdCards, AmdTool
from ollama_sweep.machine.sensing.gauge import Gauge
from ollama_sweep.machine.sensing.other_gpus import AppleGpu, IntelCards
from ollama_sweep.machine.sensing.processor import Pressure

OURS = frozenset({42, 43})
AMD_FILES = {
    "mem_info_vram_used": "1073741824", "gpu_busy_percent": "97", "hwmon/hwmon3/power1_average": "211000000",
    "hwmon/hwmon3/temp1_input": "61000", "hwmon/hwmon3/freq1_input": "2450000000",
}  # fmt: skip
AMD = Gauge(power_w=211.0, used_bytes=2**30, busy_share=0.97, celsius=61.0, clock_mhz=2450.0)


def card(folder: Path, number: int, vendor: str, files: Mapping[str, str], at: str = "") -> Path:
    """A card as the kernel shows it; `at` is where it sits on the bus."""
    place = folder / "bus" / (at or f"0000:0{number}:00.0")
    for name, text in {"vendor": vendor, **files}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"{text}\n")
    made = folder / "drm" / f"card{number}"
    made.mkdir(parents=True)
    (made / "device").symlink_to(place)
    (folder / "drm" / f"card{number}-DP-1").mkdir()
    return made


def test_amds_cards_say_what_the_kernel_says(tmp_path: Path) -> None:
    card(tmp_path, 0, "0x1002", AMD_FILES)
    card(tmp_path, 1, "0x1002", {"hwmon/hwmon4/power1_input": "8000000", "gpu_busy_percent": "no number"})
    card(tmp_path, 2, "0x8086", {"hwmon/hwmon5/temp1_input": "40000"})
    sensor = AmdCards(tmp_path / "drm", programs=tmp_path / "none")
    assert sensor.read(OURS) == {"card0": AMD, "card1": Gauge(power_w=8.0)}
    assert AmdCards(tmp_path / "none").read(OURS) == {}


@pytest.mark.parametrize("only_named", [False, True])
def test_only_the_cards_count_on_which_the_engine_computes(tmp_path: Path, only_named: bool) -> None:
    """The driver numbers its GPUs by itself; where they sit on the bus says which card is which."""
    card(tmp_path, 0, "0x1002", AMD_FILES, "0000:0c:00.0")
    card(tmp_path, 1, "0x1002", AMD_FILES, "0001:63:02.3")
    programs, nodes = tmp_path / "proc", tmp_path / "nodes"
    for number, (gpu, place) in enumerate({"0": "", "4711": "domain 0\nlocation_id 3072", "815":
                                           f"domain 1\nlocation_id {0x63 << 8 | 2 << 3 | 3}"}.items()):  # fmt: skip
        (nodes / str(number)).mkdir(parents=True)
        (nodes / str(number) / "gpu_id").write_text(gpu)
        (nodes / str(number) / "properties").write_text(f"cpu_cores_count 0\n{place}\n")
    (programs / "43" / "queues" / "0").mkdir(parents=True)
    (programs / "43" / "queues" / "0" / "gpuid").write_text("815\n")
    sensor = AmdCards(tmp_path / "drm", programs=programs, topology=nodes, only_named=only_named)
    assert sensor.read(OURS) == {"card1": AMD}
    elsewhere = {"amd": Gauge()} if only_named else {"card0": AMD, "card1": AMD}
    assert sensor.read(frozenset({7})) == elsewhere, "an engine that the driver does not know may use any, or none"


TOOLS = {
    "amd-smi": """[{"gpu": 0, "usage": {"gfx_activity": {"value": 12, "unit": "%"}},
        "power": {"socket_power": {"value": 90, "unit": "W"}, "gfx_voltage": "N/A"},
        "temperature": {"edge": "N/A", "hotspot": {"value": 55, "unit": "C"}},
        "clock": {"gfx_0": {"clk": {"value": 132, "unit": "MHz"}}},
        "mem_usage": {"used_vram": {"value": 283, "unit": "MB"}}}, {"gpu": 1, "power": {"socket_power": "N/A"}}]""",
    "rocm-smi": """WARNING: a low-power state\n{"card0": {"Temperature (Sensor edge) (C)": "40.0", "GPU use (%)": "3",
        "Average Graphics Package Power (W)": "35.0", "VRAM Total Memory (B)": "17163091968",
        "VRAM Total Used Memory (B)": "11501568"}, "system": {"Driver version": "6.7"}}""",
}
SAY = {
    "amd-smi": {"amd 0": Gauge(power_w=90.0, used_bytes=283 * 2**20, busy_share=0.12, celsius=55.0, clock_mhz=132.0),
                "amd 1": Gauge()},
    "rocm-smi": {"card0": Gauge(power_w=35.0, used_bytes=11501568, busy_share=0.03, celsius=40.0)},
}  # fmt: skip


def program(folder: Path, name: str, text: str) -> None:
    (folder / "says.txt").write_text(text)
    (folder / name).write_text(f"#!/bin/sh\ncat {folder / 'says.txt'}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("name", TOOLS)
def test_amds_tools_are_asked_where_the_kernel_shows_no_card(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, name, TOOLS[name])
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert AmdTool().read(OURS) == SAY[name]
    program(tmp_path, name, "ERROR: no driver")
    assert AmdTool().read(OURS) == {}
    assert amd_gpus.TOOLS[0][0] == "amd-smi"


@pytest.mark.parametrize(
    ("driver", "clock"),
    [("i915", "gt/gt0/rps_act_freq_mhz"), ("i915", "gt_act_freq_mhz"), ("xe", "device/tile0/gt0/freq0/act_freq")],
)
def test_intels_cards_say_energy_heat_and_clock(driver: str, clock: str, tmp_path: Path) -> None:
    made = card(tmp_path, 0, "0x8086", {"hwmon/hwmon1/name": driver, "hwmon/hwmon1/energy1_input": "5000000",
                                       "hwmon/hwmon1/temp2_input": "48000"})  # fmt: skip
    (made / clock).parent.mkdir(parents=True, exist_ok=True)
    (made / clock).write_text("1950\n")
    card(tmp_path, 1, "0x1002", AMD_FILES)
    assert IntelCards(tmp_path / "drm").read(OURS) == {"card0": Gauge(energy_j=5.0, celsius=48.0, clock_mhz=1950.0)}
    assert IntelCards(tmp_path / "none").read(OURS) == {}


def test_apples_gpu_is_read_of_the_systems_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = '{"In use system memory"=734003200,"Device Utilization %"=41}'
    text = f'+-o AGXAcceleratorG13X\n  "PerformanceStatistics" = {said}'
    program(tmp_path, "ioreg", text)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert AppleGpu().read(OURS) == {"apple": Gauge(used_bytes=734003200, busy_share=0.41)}
    program(tmp_path, "ioreg", "nothing of the kind")
    assert AppleGpu().read(OURS) == {}
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert AppleGpu().read(OURS) == {}
    assert other_gpus.IOREG[0] == "ioreg"


def test_pressure_is_what_the_kernel_counts(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("some avg10=1.23 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 total=7\n")
    (tmp_path / "io").write_text("")
    assert Pressure(tmp_path).read(OURS) == {"memory": Gauge(waited_s=2.5)}
    assert Pressure(tmp_path / "none").read(OURS) == {}
