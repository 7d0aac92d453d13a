"""What watching costs: processor time of the telemetry's threads, as a share of one core, and bytes for each cell.

An engine of some processes that sleep is watched, by the sensors of this machine and by made ones beside them: files as
the kernel has them for RAPL and for cards of AMD, and a library like NVIDIA's that answers at once. So the costs of the
drivers themselves are not in it but for the sensors that this machine has. The bytes are those of readings that jump
about as nothing real does, which no compression makes shorter, and of calm ones.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _common

GOAL_SHARE, GOAL_BYTES = 0.01, 2000
QUANTITIES = ("rss_bytes", "used_bytes", "cpu_share", "cpu_power_w", "gpu_power_w", "gpu_used_bytes", "gpu_busy_share",
              "gpu_celsius", "gpu_clock_mhz", "battery_percent", "pressure_memory_share", "pressure_io_share",
              "pressure_cpu_share")  # fmt: skip


class Library:
    """Eight GPUs as `pynvml` shows them."""

    class NVMLError(Exception):
        pass

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlDeviceGetCount": 8, "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**34),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97), "nvmlDeviceGetProcessUtilization": [],
            "nvmlDeviceGetComputeRunningProcesses": [], "nvmlDeviceGetMPSComputeRunningProcesses": [],
        }  # fmt: skip
        found = answers.get(name, 40)
        return lambda *words: found


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description="Telemetry: share of a core, and bytes for each cell.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long is watched each time (default 60)")
    parser.add_argument("--processes", type=int, default=4, help="processes of the engine (default 4)")
    return parser, parser.parse_args()


def made_sensors(folder: Path) -> list[Any]:
    """RAPL of two packages, four cards of AMD, eight of NVIDIA."""
    from ollama_sweep.machine.sensing.amd_gpus import AmdCards
    from ollama_sweep.machine.sensing.nvidia import Nvml
    from ollama_sweep.machine.sensing.processor import Rapl

    files: dict[str, str] = {}
    for number in range(2):
        zone = f"powercap/intel-rapl:{number}"
        files |= {f"{zone}/name": "package-0", f"{zone}/energy_uj": "1", f"{zone}/max_energy_range_uj": "9"}
    for number in range(4):
        device = f"drm/card{number}/device"
        values = {"vendor": "0x1002", "mem_info_vram_used": "1000", "gpu_busy_percent": "97",
                  "hwmon/hwmon0/power1_average": "200000000", "hwmon/hwmon0/temp1_input": "61000",
                  "hwmon/hwmon0/freq1_input": "2000000000"}  # fmt: skip
        files |= {f"{device}/{name}": text for name, text in values.items()}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return [Rapl(folder / "powercap"), AmdCards(folder / "drm"), Nvml(Library())]


def share(pids: Sequence[int], sensors: Sequence[Any] | None, seconds: float) -> float:
    """Processor time of this process over the time that passes, while it watches and does nothing else."""
    from ollama_sweep.machine.telemetry import Telemetry

    telemetry = Telemetry(lambda: tuple(pids), sensors=sensors)
    begun, used = time.monotonic(), time.process_time()
    telemetry.begin_load()
    telemetry.start()
    telemetry.begin_runs()
    time.sleep(seconds)
    telemetry.stop()
    return (time.process_time() - used) / (time.monotonic() - begun)


def packed_bytes(seconds: int, *, is_wild: bool) -> int:
    """Of a cell of that length with every quantity that there is."""
    from ollama_sweep.machine.sensing.series import Collector, packed

    chance, collector = random.Random(1), Collector()
    for at in range(seconds):
        collector.add(at, {name: 1e3 * (chance.random() if is_wild else 1 + 0.01 * chance.random())
                           if is_wild or name.startswith(("cpu", "gpu")) else 1e9 for name in QUANTITIES})  # fmt: skip
    return len(packed(collector.series()))


def main() -> None:
    parser, options = parse_arguments()
    _common.head(parser)
    from ollama_sweep.machine.sensing.find import find_sensors

    here = find_sensors()
    children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
                for _ in range(options.processes)]  # fmt: skip
    pids = [child.pid for child in children]
    try:
        with _common.temporary_folder() as folder:
            watched = {
                "no sensor": (),
                f"this machine's ({', '.join(sensor.name for sensor in here) or 'none'})": here,
                "made ones: 2 packages, 4 AMD, 8 NVIDIA": made_sensors(folder),
            }
            shares = {name: share(pids, sensors, options.seconds) for name, sensors in watched.items()}
    finally:
        for child in children:
            child.kill()
            child.communicate()
    rows = [[name, f"{100 * value:.2f} %", f"{100 * GOAL_SHARE:.0f} %"] for name, value in shares.items()]
    _common.table((f"sensors, watched for {options.seconds:.0f} s", "of a core", "goal"), rows)
    print()
    lengths = {"1 s": 1, "10 s": 10, "1 min": 60, "10 min": 600, "1 h": 3600, "24 h": 86400}
    rows = [[name, str(packed_bytes(seconds, is_wild=False)), str(packed_bytes(seconds, is_wild=True)), str(GOAL_BYTES)]
            for name, seconds in lengths.items()]  # fmt: skip
    _common.table(("a cell of", "bytes, calm", "bytes, wild", "goal"), rows)


if __name__ == "__main__":
    main()
