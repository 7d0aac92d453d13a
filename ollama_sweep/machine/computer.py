"""What machine this is, in one line for titles and in facts for the surroundings' fingerprint, and what it does now.

A sensor that is absent gives None or nothing, never zero.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ollama_sweep.core.errors import EngineStuck
from ollama_sweep.core.units import format_bytes
from ollama_sweep.machine import process
from ollama_sweep.machine.processor import processor_name as processor_name

T = TypeVar("T")
NVIDIA_S = 10.0
NVIDIA_FOLDER, NVIDIA_DEVICE = Path("/proc/driver/nvidia"), Path("/dev/nvidiactl")
SYSTEM_FOLDER = Path("/sys/devices/system/cpu")
PRESSURE_FOLDER = Path("/proc/pressure")
SELF_SCALING = frozenset({"intel_pstate", "amd-pstate-epp"})
"""Drivers whose governor `powersave` still raises the clock under load; their `preference` decides."""
THROTTLES = {0x04: "power cap", 0x08: "hardware slowdown", 0x20: "heat (software)", 0x40: "heat (hardware)",
             0x80: "power brake"}  # fmt: skip
"""Bits of NVML's clocks_throttle_reasons that lower the clock below what was asked for."""
POWER_CAP = 0x04
UNNAMED = "NVIDIA GPU"
_IS_LOST = re.compile(r"(?i)device handle|gpu is lost|fallen off")
_IS_UNKNOWN = re.compile(r"(?i)\[.*\]|n/?a|not supported|unknown( error)?|err!|-")
"""What `nvidia-smi` writes in place of a value: `[N/A]`, `[Not Supported]`, `[GPU is lost]`, `[Unknown Error]`."""
_NUMBER = re.compile(r"(-?\d+(?:[.,]\d+)?)(?: ?(?:MiB|W|%|C|MHz))?")
"""A number as `nvidia-smi` has it, with the decimal comma of some locales, or with a unit that was not asked for."""
RUNNERS = OLLAMA, LLAMA_SERVER = "ollama", "llama-server"
"""How the programs are called that compute for Ollama: it, and what it starts."""
FINGERPRINTED = ("OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NUM_PARALLEL", "OLLAMA_CONTEXT_LENGTH",
                 "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_SCHED_SPREAD", "OLLAMA_LLM_LIBRARY", "OLLAMA_GPU_OVERHEAD",
                 "LLAMA_ARG_FIT", "LLAMA_ARG_CACHE_RAM", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver names it; memory in bytes, None where the driver does not say how much there is.

    That is so where a GPU shares the computer's memory (GB10, Jetson), and where a card has failed.
    """

    name: str
    memory_bytes: int | None
    free_bytes: int | None
    driver: str


@dataclass(frozen=True)
class Machine:
    """The computer; `memory_bytes` is what it has, `available_bytes` what is free now.

    `gpu_trouble` says why GPUs are not known, "" where they are.
    """

    system: str
    processor: str
    cores: int
    memory_bytes: int
    available_bytes: int
    gpus: tuple[Gpu, ...]
    gpu_trouble: str = ""

    def line(self) -> str:
        """`AMD EPYC, 16 cores, 128.0 GiB, 2 x NVIDIA L4 (22.5 GiB)`."""
        parts = [self.processor, f"{self.cores} cores", format_bytes(self.memory_bytes)]
        counted = {(gpu.name, gpu.memory_bytes): 0 for gpu in self.gpus}
        for gpu in self.gpus:
            counted[gpu.name, gpu.memory_bytes] += 1
        for (name, memory), count in counted.items():
            times = f"{count} x " if count > 1 else ""
            parts.append(f"{times}{name} ({'memory unknown' if memory is None else format_bytes(memory)})")
        nothing = f"GPU unknown: {self.gpu_trouble}" if self.gpu_trouble else "no GPU"
        return ", ".join(parts if self.gpus else [*parts, nothing])

    def fingerprint(self) -> dict[str, str]:
        """What makes numbers comparable: processor, cores, GPUs with driver, kernel, settings of the environment."""
        settings = {name: os.environ[name] for name in FINGERPRINTED if name in os.environ}
        gpus = "; ".join(f"{gpu.name} {gpu.driver}" for gpu in self.gpus)
        return {"system": self.system, "processor": self.processor, "cores": str(self.cores), "gpus": gpus, **settings}

    def memory_fingerprint(self) -> dict[str, str]:
        """What decides how much memory a load finds: the same without the kernel, and how much memory there is."""
        gpus = ", ".join("?" if gpu.memory_bytes is None else format_bytes(gpu.memory_bytes) for gpu in self.gpus)
        same = {name: value for name, value in self.fingerprint().items() if name != "system"}
        return {**same, "memory": format_bytes(self.memory_bytes), "gpu_memory": gpus}


@dataclass(frozen=True)
class OtherMachine:
    """The computer of a server that is not here: what it is cannot be seen, and nothing of this one stands for it."""

    where: str
    gpus: tuple[Gpu, ...] = ()

    def line(self) -> str:
        """As `Machine` has it."""
        return f"unknown machine at {self.where}"

    def fingerprint(self) -> dict[str, str]:
        """As `Machine` has it: the address is all that is known."""
        return {"server": self.where}

    def memory_fingerprint(self) -> dict[str, str]:
        """As `Machine` has it."""
        return self.fingerprint()


@dataclass(frozen=True)
class RecordedMachine(OtherMachine):
    """The computer on which a recording was made: a line is all that is known of it."""

    def line(self) -> str:
        """As `Machine` has it."""
        return f"replayed: {self.where}"


def free_memory() -> tuple[int | None, int]:
    """Bytes that are free now: of all GPUs together (None where one does not say), and of the computer."""
    import psutil

    free = [gpu.free_bytes for gpu in gpus()]
    known = [one for one in free if one is not None]
    return sum(known) if known and len(known) == len(free) else None, psutil.virtual_memory().available


def free_memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of this computer's memory that are free now, also by the limit of a container; None where nobody says."""
    import psutil

    try:
        free = int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):
        return None
    with contextlib.suppress(OSError, ValueError, KeyError):
        most = int((cgroup / "memory.max").read_text("ascii"))
        lines = (cgroup / "memory.stat").read_text("ascii").splitlines()
        counted = {name: int(number) for name, _, number in (line.partition(" ") for line in lines)}
        used = int((cgroup / "memory.current").read_text("ascii")) - counted["inactive_file"]
        free = min(free, max(0, most - used))
    return free


def machine() -> Machine:
    """Look at this computer. Sensors that are absent are left out, never zero."""
    import psutil

    memory, found = psutil.virtual_memory(), gpus()
    is_told = bool(found) and any(gpu.driver or gpu.memory_bytes is not None for gpu in found)
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=processor_name(),
        cores=os.cpu_count() or 1,
        memory_bytes=memory.total,
        available_bytes=memory.available,
        gpus=found,
        gpu_trouble="" if is_told else gpu_trouble(),
    )


def gpus() -> tuple[Gpu, ...]:
    """Every NVIDIA GPU, also one that does not say how much memory it has; empty where there is none.

    Of `nvidia-smi`; where it is absent, hangs or has lost a card, of what the kernel's driver names.
    """
    rows = _nvidia("--query-gpu=name,memory.total,memory.free,driver_version")
    found = tuple(gpu for row in rows if (gpu := _gpu(row)))
    return found if found or (shutil.which("nvidia-smi") and not gpu_trouble()) else _gpus_of_kernel()


def _gpus_of_kernel() -> tuple[Gpu, ...]:
    """By name only. A container without access to a GPU sees the driver's folder all the same, but not its device."""
    if not NVIDIA_DEVICE.exists():
        return ()
    lines = [_text(file).splitlines() for file in sorted(NVIDIA_FOLDER.glob("gpus/*/information"))]
    names = [next((line.partition(":")[2].strip() for line in card if line.startswith("Model:")), "") for card in lines]
    return tuple(Gpu(name or UNNAMED, None, None, "") for name in names)


def gpu_trouble() -> str:
    """Why GPUs are not known though there may be some, in words; "" where `nvidia-smi` is absent or says nothing so."""
    if shutil.which("nvidia-smi") in _hung:
        return "nvidia-smi does not answer"
    lines = _ask_nvidia("--query-gpu=name").splitlines()
    return next((" ".join(line.split())[:200] for line in lines if _IS_LOST.search(line)), "")


def has_nvidia() -> bool:
    """Whether `nvidia-smi` names a GPU. It is asked first: in a child, where a driver that hangs holds up nothing."""
    return any(row[0].isdigit() for row in _nvidia("--query-gpu=index", 1))


_hung: set[str | None] = set()
"""Programs that did not answer in time; they are not waited for again."""


def _nvidia(query: str, fields: int | None = None) -> list[list[str]]:
    """The rows that `nvidia-smi` answers, each of so many fields."""
    rows = [[value.strip() for value in line.split(", ")] for line in _ask_nvidia(query).splitlines()]
    return [row for row in rows if fields is None or len(row) == fields]


def _ask_nvidia(query: str) -> str:
    """What `nvidia-smi` prints, also where it ends with an error: it does so for one lost card among several."""
    program = shutil.which("nvidia-smi")
    if program is None or program in _hung:
        return ""
    try:
        done = process.run([program, query, "--format=csv,noheader,nounits"], timeout_s=NVIDIA_S)
    except OSError:
        return ""
    except EngineStuck:  # a driver that hangs can keep its program in the kernel for good
        _hung.add(program)
        return ""
    if done.timed_out:
        _hung.add(program)
    return done.stdout


def _gpu(row: list[str]) -> Gpu | None:
    """A card of `name, total, free, driver`; None for a sentence that is no row. The end of a row may be cut off."""
    is_value = [bool(_IS_UNKNOWN.fullmatch(value) or _NUMBER.fullmatch(value)) for value in row]
    numbers = [index for index in range(1, len(row)) if is_value[index]]
    if not numbers:
        return None
    name, [total, free, driver] = ", ".join(row[: numbers[0]]), [*row[numbers[0] :], "", "", ""][:3]
    if not name or _IS_UNKNOWN.fullmatch(name):
        name = UNNAMED
    return Gpu(name, _mebibytes(total), _mebibytes(free), "" if _IS_UNKNOWN.fullmatch(driver) else driver)


# -- what it does now ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Busy:
    """How much of all cores is in use (0 to 1), and the busiest programs as (name, pid, cores in use)."""

    share: float
    programs: tuple[tuple[str, int, float], ...] = ()


@dataclass(frozen=True)
class Battery:
    """A battery's charge in percent, and whether the machine lives on it now."""

    percent: float
    is_in_use: bool


@dataclass(frozen=True)
class ClockPolicy:
    """How Linux sets the processor's clock: governor, driver, and the driver's preference."""

    governor: str
    driver: str = ""
    preference: str = ""

    @property
    def saves_power(self) -> bool:
        """The clock stays low under load."""
        if self.driver in SELF_SCALING:
            return self.preference == "power"
        return self.governor == "powersave"


@dataclass(frozen=True)
class GpuState:
    """What one NVIDIA GPU does now; `busy_share` is 0 to 1."""

    index: str
    name: str
    celsius: float | None
    busy_share: float | None
    throttles: tuple[str, ...]


@dataclass(frozen=True)
class GpuLoad:
    """What one NVIDIA GPU takes now, and whether its clock is held down; None where it does not say."""

    index: str
    power_w: float | None
    used_bytes: int | None
    is_throttled: bool | None
    celsius: float | None = None
    busy_share: float | None = None
    clock_mhz: float | None = None


@dataclass(frozen=True)
class GpuProcess:
    """A program that holds GPU memory."""

    pid: int
    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class Orphan:
    """A llama-server that no Ollama watches any more."""

    pid: int
    memory_bytes: int


def busy(seconds: float = 0.5, shown: int = 2) -> Busy:
    """Watch the processor for a moment, this process left out of the programs."""
    import psutil

    seen = list(psutil.process_iter())
    for program in seen:
        with contextlib.suppress(psutil.Error, OSError):
            program.cpu_percent(None)
    psutil.cpu_percent(None)
    time.sleep(seconds)
    share = psutil.cpu_percent(None) / 100
    used = []
    for program in seen:
        with contextlib.suppress(psutil.Error, OSError):
            used.append((program.name(), program.pid, program.cpu_percent(None) / 100))
    programs = sorted((entry for entry in used if entry[1] != os.getpid()), key=lambda entry: -entry[2])
    return Busy(share, tuple(entry for entry in programs[:shown] if entry[2] >= 0.1))


def pressure(kind: str, folder: Path = PRESSURE_FOLDER) -> float | None:
    """The share of the last ten seconds in which some task waited for `cpu`, `memory` or `io` (Linux)."""
    text = _text(folder / kind)
    for word in text.partition("\n")[0].split():
        name, _, value = word.partition("=")
        if name == "avg10":
            return float(value) / 100
    return None


def swap_used() -> tuple[int, int] | None:
    """Bytes of swap in use and in all; None where there is none."""
    import psutil

    try:
        found = psutil.swap_memory()
    except (OSError, RuntimeError):
        return None
    return (found.used, found.total) if found.total else None


def battery() -> Battery | None:
    """The battery; None where there is none."""
    import psutil

    try:
        found = psutil.sensors_battery()
    except (OSError, RuntimeError, AttributeError):
        return None
    return None if found is None else Battery(found.percent, found.power_plugged is False)


def clock_policy(folder: Path = SYSTEM_FOLDER) -> ClockPolicy | None:
    """The governor of the cores (the saving one where they differ); None where the system does not say."""
    policies = []
    for cpufreq in sorted(folder.glob("cpu[0-9]*/cpufreq")):
        names = ("scaling_governor", "scaling_driver", "energy_performance_preference")
        governor, driver, preference = (_text(cpufreq / name).strip() for name in names)
        if governor:
            policies.append(ClockPolicy(governor, driver, preference))
    return next((policy for policy in policies if policy.saves_power), policies[0] if policies else None)


def gpu_states() -> tuple[GpuState, ...]:
    """Temperature, load and lowered clocks of every NVIDIA GPU."""
    query = "--query-gpu=index,name,temperature.gpu,utilization.gpu,clocks_throttle_reasons.active"
    return tuple(_gpu_state(*row) for row in _nvidia(query, 5) if row[0].isdigit())


def _gpu_state(index: str, name: str, celsius: str, busy_percent: str, reasons: str) -> GpuState:
    used = _number(busy_percent)
    bits = _bits(reasons) or 0
    throttles = tuple(text for bit, text in THROTTLES.items() if bits & bit)
    name = UNNAMED if _IS_UNKNOWN.fullmatch(name) else name
    return GpuState(index, name, _number(celsius), None if used is None else used / 100, throttles)


def is_throttled(bits: int | None) -> bool | None:
    """Whether heat or the supply holds a GPU's clock down. The power limit of any hard work does not count."""
    return None if bits is None else any(bits & bit for bit in THROTTLES if bit != POWER_CAP)


def _bits(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def gpu_loads() -> tuple[GpuLoad, ...]:
    """Power, memory in use, lowered clocks, temperature, load and clock of every NVIDIA GPU."""
    names = ("index", "power.draw", "memory.used", "clocks_throttle_reasons.active", "temperature.gpu",
             "utilization.gpu", "clocks.sm")  # fmt: skip
    rows = _nvidia(f"--query-gpu={','.join(names)}")
    return tuple(_gpu_load(*row, *[""] * (len(names) - len(row))) for row in rows if 4 <= len(row) <= len(names)
                 and row[0].isdigit())  # fmt: skip


def _gpu_load(index: str, power: str, used: str, reasons: str, celsius: str, busy_percent: str, clock: str) -> GpuLoad:
    busy = _number(busy_percent)
    return GpuLoad(
        index, _number(power), _mebibytes(used), is_throttled(_bits(reasons)), _number(celsius),
        None if busy is None else busy / 100, _number(clock),
    )  # fmt: skip


def _number(text: str) -> float | None:
    found = _NUMBER.fullmatch(text)
    return float(found[1].replace(",", ".")) if found else None


def _mebibytes(text: str) -> int | None:
    """Bytes of whole MiB; what could be a decimal or a thousand (`24,576`) is not guessed."""
    found = _number(text)
    return int(found) * 1024 * 1024 if found is not None and found >= 0 and found == int(found) else None


def gpu_processes() -> tuple[GpuProcess, ...]:
    """Programs that compute on an NVIDIA GPU."""
    rows = _nvidia("--query-compute-apps=pid,process_name,used_memory", 3)
    return tuple(GpuProcess(int(pid), Path(name).name, _mebibytes(used)) for pid, name, used in rows if pid.isdigit())


def gpu_programs(indices: Sequence[str]) -> dict[str, frozenset[int]]:
    """The ids of the programs that compute on each of these NVIDIA GPUs."""
    if len(indices) == 1:
        return {indices[0]: frozenset(program.pid for program in gpu_processes())}
    number = {uuid: index for index, uuid in _nvidia("--query-gpu=index,uuid", 2)}
    rows = _nvidia("--query-compute-apps=gpu_uuid,pid", 2)
    return {index: frozenset(int(pid) for uuid, pid in rows if number.get(uuid) == index and pid.isdigit())
            for index in indices}  # fmt: skip


def visible(found: tuple[T, ...], settings: Mapping[str, str]) -> tuple[T, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; all of them where it names none by number."""
    text = settings.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return found
    words = [word.strip() for word in text.split(",")]
    if words in ([""], ["-1"]):
        return ()
    if not all(word.isdigit() for word in words):
        return found
    return tuple(found[int(word)] for word in dict.fromkeys(words) if int(word) < len(found))


def orphans() -> tuple[Orphan, ...]:
    """llama-servers whose Ollama has died: they keep their memory and may still compute."""
    import psutil

    found = []
    for program in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if program.name().startswith(LLAMA_SERVER) and _parent_is_gone(program.ppid()):
                found.append(Orphan(program.pid, program.memory_info().rss))
    return tuple(found)


def _parent_is_gone(parent: int) -> bool:
    """Init, or a session's reaper, has taken it over; in a container Ollama itself may be process 1."""
    import psutil

    if parent == 0:
        return True
    name = psutil.Process(parent).name()
    return not name.startswith(OLLAMA) and (parent == 1 or name in ("systemd", "init", "launchd"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
