"""What machine this is, in one line for titles and in facts for the surroundings' fingerprint."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from ollama_sweep import process
from ollama_sweep.units import format_bytes

NVIDIA_S = 10.0
FINGERPRINTED = ("OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NUM_PARALLEL", "OLLAMA_CONTEXT_LENGTH",
                 "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_SCHED_SPREAD", "OLLAMA_LLM_LIBRARY", "OLLAMA_GPU_OVERHEAD",
                 "LLAMA_ARG_FIT", "LLAMA_ARG_CACHE_RAM", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver names it; memory in bytes."""

    name: str
    memory_bytes: int
    free_bytes: int
    driver: str


@dataclass(frozen=True)
class Machine:
    """The computer; `memory_bytes` is what it has, `available_bytes` what is free now."""

    system: str
    processor: str
    cores: int
    memory_bytes: int
    available_bytes: int
    gpus: tuple[Gpu, ...]

    def line(self) -> str:
        """`AMD EPYC, 16 cores, 128.0 GiB, 2 x NVIDIA L4 (22.5 GiB)`."""
        parts = [self.processor, f"{self.cores} cores", format_bytes(self.memory_bytes)]
        counted = {(gpu.name, gpu.memory_bytes): 0 for gpu in self.gpus}
        for gpu in self.gpus:
            counted[gpu.name, gpu.memory_bytes] += 1
        for (name, memory), count in counted.items():
            times = f"{count} x " if count > 1 else ""
            parts.append(f"{times}{name} ({format_bytes(memory)})")
        return ", ".join(parts if self.gpus else [*parts, "no GPU"])

    def fingerprint(self) -> dict[str, str]:
        """What makes numbers comparable: processor, cores, GPUs with driver, kernel, settings of the environment."""
        settings = {name: os.environ[name] for name in FINGERPRINTED if name in os.environ}
        gpus = "; ".join(f"{gpu.name} {gpu.driver}" for gpu in self.gpus)
        return {"system": self.system, "processor": self.processor, "cores": str(self.cores), "gpus": gpus, **settings}


def machine() -> Machine:
    """Look at this computer. Sensors that are absent are left out, never zero."""
    import psutil

    memory = psutil.virtual_memory()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=memory.total,
        available_bytes=memory.available,
        gpus=gpus(),
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def gpus() -> tuple[Gpu, ...]:
    """Every NVIDIA GPU; empty where `nvidia-smi` is absent, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    wanted = "--query-gpu=name,memory.total,memory.free,driver_version"
    try:
        done = process.run([program, wanted, "--format=csv,noheader,nounits"], timeout_s=NVIDIA_S)
    except OSError:
        return ()
    rows = [line.split(", ") for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return tuple(_gpu(row) for row in rows if len(row) == 4 and row[1].isdigit() and row[2].isdigit())


def _gpu(row: list[str]) -> Gpu:
    mebibyte = 1024 * 1024
    return Gpu(row[0], int(row[1]) * mebibyte, int(row[2]) * mebibyte, row[3])
