"""The machine as it is described and watched: an absent sensor is absent, never zero."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ollama_sweep.machine import computer, ports, process
from ollama_sweep.machine.computer import Battery, Busy, ClockPolicy, Gpu, Machine

GIB = 1 << 30
L4 = Gpu("NVIDIA L4", 24 * GIB, 20 * GIB, "580.65")
A2 = Gpu("NVIDIA A2", 16 * GIB, 15 * GIB, "580.65")


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an `nvidia-smi` first in PATH that runs these lines of shell; `$1` is the query."""

    def write(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return write


def machine(*gpus: Gpu) -> Machine:
    return Machine("Linux 6.1", "AMD EPYC", 16, 128 * GIB, 100 * GIB, gpus)


# -- what it is ------------------------------------------------------------------------------------------------------


def test_the_line_counts_equal_gpus_and_names_every_kind() -> None:
    assert machine().line() == "AMD EPYC, 16 cores, 128.0 GiB, no GPU"
    assert machine(L4, A2, L4).line() == (
        "AMD EPYC, 16 cores, 128.0 GiB, 2 x NVIDIA L4 (24.0 GiB), NVIDIA A2 (16.0 GiB)"
    )


def test_the_fingerprint_has_drivers_and_settings_but_not_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_KV_CACHE_TYPE", "q8_0")
    found = machine(L4).fingerprint()
    assert found["gpus"] == "NVIDIA L4 580.65"
    assert found["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
    assert not any("free" in name or "available" in name for name in found)


def test_this_machine() -> None:
    here = computer.machine()
    assert here.cores >= 1
    assert 0 < here.available_bytes <= here.memory_bytes
    assert here.processor in here.line()


# -- NVIDIA ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's kernel has no NVIDIA driver; where a test makes one."""
    monkeypatch.setattr(computer, "NVIDIA_FOLDER", tmp_path / "nvidia")
    monkeypatch.setattr(computer, "NVIDIA_DEVICE", tmp_path / "nvidiactl")
    return tmp_path


@pytest.mark.parametrize("script", ["", "/bin/sleep 60", "echo 'Unable to determine the device handle'; exit 255"])
def test_where_nvidia_smi_does_not_help_the_kernel_names_the_card(
    script: str, no_driver: Path, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = no_driver / "nvidia" / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA L4\nIRQ:   \t\t 77\n")
    monkeypatch.setenv("PATH", str(no_driver / "empty"))
    monkeypatch.setattr(computer, "NVIDIA_S", 0.2)
    if script:
        nvidia_smi(script)
    assert computer.gpus() == (), "a container without access to it"
    (no_driver / "nvidiactl").touch()
    assert computer.gpus() == (Gpu("NVIDIA L4", None, None, ""),)
    found = computer.machine()
    assert found.line().endswith("NVIDIA L4 (memory unknown)")
    assert bool(found.gpu_trouble) is bool(script)


def test_without_nvidia_smi_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (computer.gpus(), computer.gpu_states(), computer.gpu_processes()) == ((), (), ())


def test_every_gpu_is_listed(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi('printf "NVIDIA L4, 24576, 20480, 580.65\\nNVIDIA A2, 16384, 15360, 580.65\\n"')
    assert computer.gpus() == (L4, A2)


FAILED = """NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest
NVIDIA driver is installed and running, and try again."""
LOST = "Unable to determine the device handle for GPU0000:0B:00.0: GPU is lost."
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.129"


@pytest.mark.parametrize("text", [FAILED, MISMATCH, "No devices were found", "", "NVIDIA L4"])
def test_a_driver_that_names_no_card_gives_no_gpu(text: str, nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi(f"cat <<'END'\n{text}\nEND\nexit 9")
    assert computer.gpus() == ()
    assert not computer.has_nvidia()
    assert computer.machine().line().endswith("no GPU")


@pytest.mark.parametrize(
    ("rows", "cards"),
    [
        ("NVIDIA GB10, [N/A], [N/A], 580.95.05", [("NVIDIA GB10", None, None, "580.95.05")]),
        ("Orin (nvgpu), [Not Supported], [Not Supported], 540.4.0", [("Orin (nvgpu)", None, None, "540.4.0")]),
        ("NVIDIA Thor, Not Supported, N/A, [N/A]", [("NVIDIA Thor", None, None, "")]),
        (
            "NVIDIA L4, 24576, 20480, 580.65\nNVIDIA A2, [GPU is lost], [GPU is lost], 580.65",
            [("NVIDIA L4", 24, 20, "580.65"), ("NVIDIA A2", None, None, "580.65")],
        ),
        ("[Unknown Error], [Unknown Error], ERR!, [Unknown Error]", [("NVIDIA GPU", None, None, "")]),
        (f"{LOST}  Reboot the system to recover\nNVIDIA L4, 24576, 20480, 580.65", [("NVIDIA L4", 24, 20, "580.65")]),
        (
            "NVIDIA A100-SXM4-40GB MIG 1g.5gb, 4864, 4096, 550.54",
            [("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.75, 4, "550.54")],
        ),
        ("Card, of a maker, 24576 MiB, 20480 MiB, 580.65", [("Card, of a maker", 24, 20, "580.65")]),
        ("NVIDIA L4, 24576.00, 20480,00, 580.65", [("NVIDIA L4", 24, 20, "580.65")]),
        ("NVIDIA L4, 24,576, 20,480, 580.65", [("NVIDIA L4", None, None, "580.65")]),
        ("NVIDIA L4, 24576, 20480, 580.65\nNVIDIA A2, 163", [("NVIDIA L4", 24, 20, "580.65"),
                                                               ("NVIDIA A2", 163 / 1024, None, "")]),
        ("NVIDIA L4, 24576, 20480, 580.65\nNVID", [("NVIDIA L4", 24, 20, "580.65")]),
    ],
)  # fmt: skip
def test_a_card_is_a_card_whatever_its_driver_does_not_say(
    rows: str, cards: list[tuple[str, float | None, float | None, str]], nvidia_smi: Callable[[str], None]
) -> None:
    """Also one among cards of which one has failed, for which nvidia-smi ends with an error."""
    nvidia_smi(f"cat <<'END'\n{rows}\nEND\nexit 15")

    def size(gibibytes: float | None) -> int | None:
        return None if gibibytes is None else round(gibibytes * GIB)

    assert computer.gpus() == tuple(Gpu(name, size(all_), size(free), driver) for name, all_, free, driver in cards)


def test_a_card_of_unknown_memory_is_in_the_line_and_in_the_fingerprint() -> None:
    found = machine(Gpu("NVIDIA GB10", None, None, "580.95"), L4)
    assert found.line().endswith("NVIDIA GB10 (memory unknown), NVIDIA L4 (24.0 GiB)")
    assert found.fingerprint()["gpus"] == "NVIDIA GB10 580.95; NVIDIA L4 580.65"


def test_an_only_card_that_is_lost_is_not_passed_over_in_silence(nvidia_smi: Callable[[str], None]) -> None:
    text = "Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error"
    nvidia_smi(f"echo '{text}'; exit 255")
    assert computer.machine().line().endswith(f"GPU unknown: {text}")


def test_a_hanging_nvidia_smi_is_given_up_and_not_waited_for_again(
    nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An hour has passed as soon as it was asked."""
    asked, hangs = tmp_path / "asked", tmp_path / "hangs"
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * hangs.exists()))
    nvidia_smi(f"echo asked >>{asked}; touch {hangs}; sleep 60")
    assert computer.gpus() == ()
    assert computer.machine().line().endswith("GPU unknown: nvidia-smi does not answer")
    assert (computer.gpu_states(), computer.gpu_processes(), computer.has_nvidia()) == ((), (), False)
    assert asked.read_text() == "asked\n"


def test_states_of_gpus(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi(
        'printf "0, NVIDIA L4, 84, 97, 0x0000000000000060\\n1, NVIDIA A2, 40, 0, 0x0000000000000001\\n'
        '2, NVIDIA X, [N/A], [N/A], [Not Supported]\\n"'
    )
    hot, idle, silent = computer.gpu_states()
    assert (hot.index, hot.celsius, hot.busy_share) == ("0", 84.0, 0.97)
    assert hot.throttles == ("heat (software)", "heat (hardware)")
    assert (idle.busy_share, idle.throttles) == (0.0, ())
    assert (silent.celsius, silent.busy_share, silent.throttles) == (None, None, ())


def test_programs_on_gpus(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi('printf "4711, /usr/bin/blender, 2048\\n4712, [Not Found], [N/A]\\n"')
    assert computer.gpu_processes() == (
        computer.GpuProcess(4711, "blender", 2 * GIB),
        computer.GpuProcess(4712, "[Not Found]", None),
    )


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (None, (L4, A2)),
        ("", ()),
        ("-1", ()),
        ("1", (A2,)),
        ("1,0", (A2, L4)),
        ("0, 7", (L4,)),
        ("GPU-8932f937", (L4, A2)),
    ],
)
def test_gpus_that_are_left_visible(text: str | None, left: tuple[Gpu, ...]) -> None:
    settings = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    assert computer.visible((L4, A2), settings) == left


# -- what it does now ------------------------------------------------------------------------------------------------


def test_watching_the_processor() -> None:
    found = computer.busy(0.05)
    assert 0 <= found.share <= 1
    assert all(pid != os.getpid() for _, pid, _ in found.programs)
    assert isinstance(found, Busy)


def test_pressure_is_a_share(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text(
        "some avg10=12.50 avg60=1.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "utf-8"
    )
    assert computer.pressure("memory", tmp_path) == 0.125
    assert computer.pressure("cpu", tmp_path) is None


@dataclass
class _Swap:
    total: int
    used: int


@pytest.mark.parametrize(("swap", "found"), [(_Swap(0, 0), None), (_Swap(8, 2), (2, 8))])
def test_no_swap_is_not_zero_swap(
    swap: _Swap, found: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(psutil, "swap_memory", lambda: swap)
    assert computer.swap_used() == found


@dataclass
class _Charge:
    percent: float
    power_plugged: bool | None


@pytest.mark.parametrize(
    ("charge", "found"),
    [
        (None, None),
        (_Charge(80, True), Battery(80, False)),
        (_Charge(42, False), Battery(42, True)),
        (_Charge(42, None), Battery(42, False)),
    ],
)
def test_battery(charge: _Charge | None, found: Battery | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: charge, raising=False)
    assert computer.battery() == found


def cores(folder: Path, *policies: tuple[str, str, str]) -> Path:
    """A copy of the kernel's folder of cores with these governors, drivers and preferences."""
    for number, texts in enumerate(policies):
        place = folder / f"cpu{number}" / "cpufreq"
        place.mkdir(parents=True)
        names = ("scaling_governor", "scaling_driver", "energy_performance_preference")
        for name, text in zip(names, texts, strict=True):
            if text:
                (place / name).write_text(f"{text}\n", "utf-8")
    return folder


def test_without_cpufreq_there_is_no_clock_policy(tmp_path: Path) -> None:
    assert computer.clock_policy(tmp_path) is None


def test_the_saving_core_is_the_one_that_counts(tmp_path: Path) -> None:
    folder = cores(tmp_path, ("performance", "acpi-cpufreq", ""), ("powersave", "acpi-cpufreq", ""))
    assert computer.clock_policy(folder) == ClockPolicy("powersave", "acpi-cpufreq")


@pytest.mark.parametrize(
    ("policy", "saves"),
    [
        (ClockPolicy("powersave", "acpi-cpufreq"), True),
        (ClockPolicy("performance", "acpi-cpufreq"), False),
        (ClockPolicy("schedutil"), False),
        (ClockPolicy("powersave", "intel_pstate", "balance_performance"), False),
        (ClockPolicy("powersave", "amd-pstate-epp", "power"), True),
    ],
)
def test_powersave_means_something_else_to_drivers_that_scale_themselves(policy: ClockPolicy, saves: bool) -> None:
    assert policy.saves_power is saves


class _Process:
    """A process as psutil shows it."""

    def __init__(self, pid: int, name: str, parent: int) -> None:
        self.pid, self._name, self._parent = pid, name, parent

    def name(self) -> str:
        return self._name

    def ppid(self) -> int:
        return self._parent

    def memory_info(self) -> Any:
        return type("Memory", (), {"rss": GIB})


@pytest.mark.parametrize(
    ("first", "orphans"),
    [("init", [11, 12]), ("ollama", [12])],
    ids=["a machine", "a container whose first process is Ollama"],
)
def test_a_runner_without_its_ollama(first: str, orphans: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    table = [
        _Process(1, first, 0),
        _Process(5, "ollama", 1),
        _Process(6, "systemd", 1),
        _Process(10, "llama-server", 5),
        _Process(11, "llama-server", 1),
        _Process(12, "llama-server", 6),
        _Process(13, "python", 1),
    ]
    monkeypatch.setattr(psutil, "process_iter", lambda: iter(table))
    monkeypatch.setattr(psutil, "Process", lambda pid: next(entry for entry in table if entry.pid == pid))
    assert [orphan.pid for orphan in computer.orphans()] == orphans


def test_settings_of_a_server_that_is_not_ollama_are_not_read() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert ports.server_settings(other.getsockname()[1]) is None
