"""What on this machine would spoil numbers: other programs, saving clocks, heat, full memory, settings of Ollama.

Every check looks once and returns findings; `host` has the sensors. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ollama_sweep.core.finding import Finding, bad, ok, warning
from ollama_sweep.core.options import KV_CACHE_SHARES
from ollama_sweep.core.units import format_bytes
from ollama_sweep.machine import computer

BUSY_SHARE = 0.15
GPU_BUSY_SHARE = 0.10
PRESSURE_SHARE = 0.05
LITTLE_MEMORY_SHARE = 0.10
SWAP_SHARE = 0.25
PLAIN_CACHE_TYPES = ("f32", "f16", "bf16")
OFF = ("0", "false", "off", "no")


def findings(
    machine: computer.Machine, settings: Mapping[str, str], origin: str, *, sweep_runs: bool
) -> Iterator[Finding]:
    """Everything that can be seen from outside of Ollama. `settings` is the environment of its server, `origin` whose.

    Where a sweep runs now, its own load is nothing to warn of.
    """
    yield from of_settings(settings, machine.gpus, origin)
    yield from of_cpu(computer.busy(), computer.pressure("cpu"), sweep_runs=sweep_runs)
    yield from of_memory(machine, computer.pressure("memory"), computer.swap_used())
    yield from of_power(computer.battery(), computer.clock_policy())
    if machine.gpus:
        yield from of_gpus(computer.gpu_states(), computer.gpu_processes(), sweep_runs=sweep_runs)
    if machine.gpu_trouble:
        text = f"what the GPUs are and do is not known: {machine.gpu_trouble}"
        yield warning("gpu", text, "Restart the computer or its driver; until then a GPU may be missing in the results")
    yield from of_orphans(computer.orphans(), sweep_runs=sweep_runs)


def of_cpu(busy: computer.Busy, pressure: float | None, *, sweep_runs: bool) -> Iterator[Finding]:
    """Programs that take the processor away from the cells."""
    used = f"{busy.share:.0%} in use"
    waits = f", programs wait for it {pressure:.0%} of the time" if pressure is not None else ""
    if sweep_runs:
        yield ok("cpu", f"{used} (a sweep is running)")
    elif busy.share >= BUSY_SHARE:
        names = ", ".join(f"{name} (pid {pid}, {cores:.1f} cores)" for name, pid, cores in busy.programs)
        what = f"the busiest: {names}" if names else "by programs that this user cannot see"
        yield warning("cpu", f"{used}{waits}; {what}", "Let it come to rest before you measure")
    elif pressure is not None and pressure >= PRESSURE_SHARE:
        yield ok("cpu", f"{used} now, but in the last 10 s programs waited for it {pressure:.0%} of the time")
    else:
        yield ok("cpu", f"quiet ({used})")


def of_memory(
    machine: computer.Machine, pressure: float | None, swap: tuple[int, int] | None
) -> Iterator[Finding]:  # fmt: skip
    """Memory that is nearly full, or already moved to disk."""
    free = f"{format_bytes(machine.available_bytes)} of {format_bytes(machine.memory_bytes)} free"
    close = "Close programs: a machine that swaps measures its disk"
    if machine.available_bytes < LITTLE_MEMORY_SHARE * machine.memory_bytes:
        yield warning("memory", f"only {free}", close)
    elif pressure is not None and pressure >= PRESSURE_SHARE:
        yield warning("memory", f"{free}, but programs wait for it {pressure:.0%} of the time", close)
    else:
        yield ok("memory", free)
    if swap is not None and swap[0] > SWAP_SHARE * swap[1]:
        yield warning("swap", f"{format_bytes(swap[0])} of {format_bytes(swap[1])} in use", close)


def of_power(battery: computer.Battery | None, policy: computer.ClockPolicy | None) -> Iterator[Finding]:
    """Clocks that are kept low to save power. Nothing where there is neither battery nor policy."""
    if battery is not None and battery.is_in_use:
        text = f"the machine runs on its battery ({battery.percent:.0f} %), which lowers clocks"
        yield warning("power", text, "Plug it in")
    elif battery is not None:
        yield ok("power", "plugged in")
    if policy is None:
        return
    words = f"governor {policy.governor}"
    words += f", preference {policy.preference}" if policy.preference else ""
    words += f" (driver {policy.driver})" if policy.driver else ""
    if policy.saves_power:
        hint = "Until the next start: sudo cpupower frequency-set -g performance"
        yield warning("clock", f"{words}: the processor stays slow to save power", hint)
    else:
        yield ok("clock", words)


def of_gpus(
    states: Sequence[computer.GpuState], programs: Sequence[computer.GpuProcess], *, sweep_runs: bool
) -> Iterator[Finding]:
    """Heat, lowered clocks, and programs that share a GPU."""
    for state in states:
        name = f"GPU {state.index} {state.name}"
        warm = f" at {state.celsius:.0f} C" if state.celsius is not None else ""
        if state.throttles:
            yield warning("gpu", f"{name}{warm} lowers its clock now: {', '.join(state.throttles)}", "Let it cool down")
        elif not sweep_runs and state.busy_share is not None and state.busy_share >= GPU_BUSY_SHARE:
            yield warning("gpu", f"{name} is {state.busy_share:.0%} busy", "Let it come to rest before you measure")
        else:
            yield ok("gpu", f"{name}{warm}, clock not lowered")
    for program in programs:
        if not program.name.startswith(computer.RUNNERS):
            held = f" and holds {format_bytes(program.memory_bytes)}" if program.memory_bytes is not None else ""
            text = f"{program.name} (pid {program.pid}) computes on a GPU{held}"
            yield warning("gpu", text, "End it, or its work is part of every number")


def of_orphans(orphans: Sequence[computer.Orphan], *, sweep_runs: bool) -> Iterator[Finding]:
    """llama-servers that outlived their Ollama."""
    for orphan in orphans:
        text = f"llama-server (pid {orphan.pid}) runs without an Ollama and holds {format_bytes(orphan.memory_bytes)}"
        yield warning("left-over", text, "" if sweep_runs else f"If nobody needs it: kill {orphan.pid}")


def of_settings(settings: Mapping[str, str], gpus: Sequence[computer.Gpu], origin: str) -> Iterator[Finding]:
    """OLLAMA_* and related variables that change what is measured."""
    found = [*_of_cache(settings), *_of_parallel(settings), *_of_places(settings, gpus)]
    yield from found
    told = [f"{name}={settings[name]}" for name in computer.FINGERPRINTED if settings.get(name)]
    told = [text for text in told if not any(text in finding.text for finding in found)]
    if told:
        yield ok("settings", f"{', '.join(told)} {origin}: stored with the results, a change is seen")
    elif not found:
        yield ok("settings", f"no variable {origin} that changes what is measured")


def _of_cache(settings: Mapping[str, str]) -> Iterator[Finding]:
    kind = settings.get("OLLAMA_KV_CACHE_TYPE", "")
    text = f"OLLAMA_KV_CACHE_TYPE={kind}"
    flash = settings.get("OLLAMA_FLASH_ATTENTION", "").lower()
    if not kind or kind.lower() in PLAIN_CACHE_TYPES:
        return
    if kind.lower() not in KV_CACHE_SHARES:
        hint = f"Use one of {', '.join(KV_CACHE_SHARES)}"
        yield bad("settings", f"{text} is no type of cache; no model will load", hint)
    elif flash in OFF:
        text = f"{text} with OLLAMA_FLASH_ATTENTION={settings['OLLAMA_FLASH_ATTENTION']}: no model will load"
        yield bad("settings", text, "A quantized cache needs flash attention: set OLLAMA_FLASH_ATTENTION=1")
    elif not flash:
        text = f"{text} without OLLAMA_FLASH_ATTENTION=1: where flash attention is not chosen, loading fails"
        yield warning("settings", text, "Set OLLAMA_FLASH_ATTENTION=1 for the server, too")


def _of_parallel(settings: Mapping[str, str]) -> Iterator[Finding]:
    parallel = settings.get("OLLAMA_NUM_PARALLEL", "")
    if parallel.isdigit() and int(parallel) > 1:
        text = f"OLLAMA_NUM_PARALLEL={parallel}: each cell holds {parallel} KV caches, so memory ends sooner"
        yield warning("settings", text, "Unset it for the server, unless you want to measure just that")


def _of_places(settings: Mapping[str, str], gpus: Sequence[computer.Gpu]) -> Iterator[Finding]:
    library = settings.get("OLLAMA_LLM_LIBRARY")
    if library:
        text = f"OLLAMA_LLM_LIBRARY={library}: Ollama does not choose the fastest library itself"
        yield warning("settings", text, "Unset it for the server, unless you want to measure just that")
    if gpus and settings.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield warning(
            "settings", "CUDA_VISIBLE_DEVICES hides every GPU: the CPU is measured", "Unset it for the server"
        )
    if settings.get("OLLAMA_NOPRUNE", "").lower() not in ("", *OFF):
        text = f"OLLAMA_NOPRUNE={settings['OLLAMA_NOPRUNE']}: small files of every cell stay in the model folder"
        yield warning("settings", text, "Unset it for the server")
    if settings.get("OLLAMA_HOST", "").startswith(("0.0.0.0", "http://0.0.0.0", "[::]", "http://[::]")):  # noqa: S104
        text = f"OLLAMA_HOST={settings['OLLAMA_HOST']}: other machines can use this server while it is measured"
        yield warning("settings", text, "Use 127.0.0.1 where nobody else needs it")
