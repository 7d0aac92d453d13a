"""Programs of others beside the engine, on a GPU and on the processor: told only where they can be told from ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ollama_sweep.core import judge
from ollama_sweep.core.outcome import FLAG_MEANINGS, Flag
from ollama_sweep.machine import amd, neighbours
from ollama_sweep.machine.neighbours import CoreTime
from ollama_sweep.machine.sensing.amd_gpus import AmdPrograms
from ollama_sweep.machine.sensing.gauge import Gauge
from ollama_sweep.machine.sensing.nvidia import NvidiaSmi, Nvml
from ollama_sweep.machine.telemetry import Telemetry

ENGINE, OTHER, IDLE = 42, 2**22 + 1, 2**22 + 2
"""No process of this machine has these ids, but perhaps the first."""
OURS = frozenset({ENGINE})


# -- NVIDIA ------------------------------------------------------------------------------------------------------------


class _Library:
    """A driver with two GPUs: who holds memory on the second one, and who has computed there since the last question.

    `computes` is None where the driver cannot say who computes.
    """

    class NVMLError(Exception):
        value = 3

    class NotFound(NVMLError):
        value = 6

    def __init__(self, holds: list[int], computes: list[int] | None = None) -> None:
        self.holds, self.computes = holds, computes
        self.asked_from: list[int] = []

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the library's name
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in self.holds] if handle == 1 else []

    def nvmlDeviceGetProcessUtilization(self, handle: int, since: int) -> list[Any]:  # noqa: N802
        self.asked_from.append(since)
        if self.computes is None:
            raise self.NVMLError
        if not self.computes:
            raise self.NotFound
        return [SimpleNamespace(pid=pid, timeStamp=since + 7, smUtil=90) for pid in self.computes]


@pytest.mark.parametrize(
    ("holds", "computes", "is_shared"),
    [
        ([ENGINE], None, False),
        ([ENGINE, OTHER], None, True),  # the driver says only who is there
        ([ENGINE, OTHER], [ENGINE, OTHER], True),
        ([ENGINE, IDLE], [ENGINE], False),  # a notebook that holds memory computes nothing
        ([ENGINE, OTHER], [OTHER], None),  # not known yet whether the driver would name the engine
        ([ENGINE, OTHER], [], None),
    ],
)
def test_who_computes_beside_the_engine(holds: list[int], computes: list[int] | None, is_shared: bool | None) -> None:
    gauges = Nvml(_Library(holds, computes)).read(OURS)
    assert {name: gauge.is_shared for name, gauge in gauges.items()} == {"1": is_shared}


def test_a_driver_that_has_named_the_engine_is_believed_when_it_names_others_only() -> None:
    library = _Library([ENGINE, OTHER])
    sensor, found = Nvml(library), []
    for computes in ([ENGINE], [OTHER], []):
        library.computes = computes
        found.append(sensor.read(OURS)["1"].is_shared)
    assert found == [False, True, False]
    first, second, third = library.asked_from
    assert (second - first, third - second) == (7, 7), "each time it is asked only of what came since"


def test_in_a_container_the_drivers_ids_are_not_ours_and_nothing_is_said() -> None:
    """Our own server has another id there, so it would look like a program of others."""
    gauges = Nvml(_Library([4711, OTHER])).read(OURS)
    assert [gauge.is_shared for gauge in gauges.values()] == [None, None]


@pytest.mark.parametrize(
    ("cards", "other", "is_shared"),
    [(1, "0", [True]), (2, "0", [True, None]), (2, "1", [False, None])],
)
def test_who_computes_by_nvidia_smi(
    cards: int, other: str, is_shared: list[bool | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is on GPU 0. With several cards the driver is asked which one a program is on."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"""#!/bin/sh
case $1 in
*power.draw*) for card in 0 1; do [ $card -lt {cards} ] && echo "$card, 61.25, 1024, 0x0"; done;;
*index,uuid) echo '0, GPU-a0'; echo '1, GPU-a1';;
*compute-apps=pid*) echo '42, /bin/ollama, 900'; echo '{OTHER}, [Not Found], [N/A]';;
*compute-apps=gpu_uuid*) echo 'GPU-a0, 42'; echo 'GPU-a{other}, {OTHER}';;
esac
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert [gauge.is_shared for gauge in NvidiaSmi().read(OURS).values()] == is_shared
    assert {gauge.is_shared for gauge in NvidiaSmi().read(frozenset({4711})).values()} == {None}


# -- AMD ---------------------------------------------------------------------------------------------------------------


def kfd(folder: Path, **queues: str) -> Path:
    """The kernel's folder of programs on AMD's GPUs: the GPU of each program's queue, by `p` and its id."""
    for name, gpu in queues.items():
        place = folder / name.removeprefix("p") / "queues"
        place.mkdir(parents=True)
        if gpu:
            (place / "0").mkdir()
            (place / "0" / "gpuid").write_text(f"{gpu}\n")
    return folder


def test_who_computes_on_amd_cards_by_the_kernels_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has only opened the device has no queue; one on another card is in nobody's way."""
    monkeypatch.setattr(amd, "KFD_PROCESSES", kfd(tmp_path, p42="29312", p43="", p4194306="8912"))
    sensor = AmdPrograms()
    assert sensor.read(OURS) == {"amd": Gauge(), "amd 29312": Gauge(is_shared=False), "amd 8912": Gauge()}
    kfd(tmp_path, p4194305="29312")
    assert sensor.read(OURS)["amd 29312"].is_shared is True
    assert sensor.read(frozenset({7}))["amd 29312"].is_shared is None


AMD_SMI = '[{"gpu": 0, "process_list": [{"process_info": {"name": "llama-server", "pid": 42}}%s]}]'
ANOTHER = ', {"process_info": {"pid": "4194305"}}'
ROCM_SMI = '{"system": {"PID42": "llama-server, 1, 2353860608, 11011, 0"%s}}'


@pytest.mark.parametrize(
    ("tool", "text", "is_shared"),
    [
        ("amd-smi", AMD_SMI % "", False),
        ("amd-smi", AMD_SMI % ANOTHER, True),
        ("amd-smi", 'WARNING: low-power state\n{"gpu_data": ' + AMD_SMI % ANOTHER + "}", True),
        ("amd-smi", '[{"gpu": 0, "process_list": [{"process_info": "No running processes detected"}]}]', None),
        ("rocm-smi", ROCM_SMI % "", False),
        ("rocm-smi", "WARNING: [1] {x}\n" + ROCM_SMI % ', "PID4194305": "python3, 1, 1, 0, 0"', True),
        ("rocm-smi", "No KFD PIDs currently running", None),
    ],
)
def test_who_computes_on_amd_cards_by_the_tools(
    tool: str, text: str, is_shared: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amd, "KFD_PROCESSES", tmp_path / "none")
    program = tmp_path / tool
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = AmdPrograms().read(OURS)
    assert found["amd"] == Gauge(), "it has answered"
    assert found.get("amd 0", Gauge()).is_shared is is_shared


# -- whose a program is ------------------------------------------------------------------------------------------------

_WAITS = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.readline()"


def test_a_child_that_came_after_the_last_look_at_the_engine_is_not_of_others() -> None:
    engine = subprocess.Popen([sys.executable, "-c", _WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert engine.stdout is not None
    child = int(engine.stdout.readline())
    try:
        assert neighbours.foreign({child, engine.pid, OTHER}, frozenset({engine.pid})) == {OTHER}
        assert neighbours.foreign({child, os.getpid()}, OURS) == frozenset(), "nor is a child of this program"
    finally:
        os.kill(child, 9)
        engine.communicate(b"\n")


# -- the processor -----------------------------------------------------------------------------------------------------

_BURNS = """
import subprocess, sys, time
while time.process_time() < 0.3: pass
if sys.argv[1:]: subprocess.run([sys.executable, "-c", sys.argv[1]], stdin=subprocess.DEVNULL)
print("done", flush=True)
sys.stdin.readline()
"""


def test_what_the_engine_and_its_ended_children_have_computed_is_not_of_others() -> None:
    process = subprocess.Popen([sys.executable, "-c", _BURNS, _BURNS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == [b"done\n"] * 2
    found = neighbours.core_time((process.pid,), us=process.pid)
    process.communicate(b"\n")
    assert found is not None
    assert found.ours_s >= 0.55
    assert found.used_s <= found.passed_s


def test_of_an_engine_that_cannot_be_seen_nothing_is_known() -> None:
    assert neighbours.core_time(()) is None
    assert neighbours.core_time((OTHER,)) is None


@pytest.mark.parametrize(
    ("passed_s", "used_s", "ours_s", "share"),
    [
        (10.0, 8.0, 7.0, 0.1),
        (10.0, 8.0, 2.0, 0.6),
        (10.0, 5.0, 5.1, 0.0),  # counted in ticks, ours may come to more than all
        (1.9, 1.9, 0.0, None),  # too short to tell
    ],
)
def test_the_share_of_others(passed_s: float, used_s: float, ours_s: float, share: float | None) -> None:
    before = CoreTime(100.0, 50.0, 20.0)
    after = CoreTime(100.0 + passed_s, 50.0 + used_s, 20.0 + ours_s)
    assert neighbours.others_share(before, after) == (None if share is None else pytest.approx(share))
    assert neighbours.others_share(None, after) is None
    assert neighbours.others_share(before, None) is None


def test_what_is_counted_begins_with_the_runs_and_ends_with_them() -> None:
    times = iter([CoreTime(100.0, 90.0, 0.0), CoreTime(110.0, 95.0, 2.0), CoreTime(900.0, 900.0, 0.0)])
    telemetry = Telemetry(lambda: (1,), sensors=(), cores=lambda pids: next(times))
    telemetry.start()
    telemetry.begin_runs()
    assert telemetry.stop()["others_cpu_share"] == pytest.approx(0.3)
    assert telemetry.stop()["others_cpu_share"] == pytest.approx(0.3)


@pytest.mark.parametrize("broken", [True, False])
def test_where_nobody_counts_there_is_no_number(broken: bool) -> None:
    def fails(pids: object) -> CoreTime:
        raise OSError

    telemetry = Telemetry(lambda: (1,), sensors=(), cores=fails if broken else None)
    telemetry.start()
    telemetry.begin_runs()
    assert "others_cpu_share" not in telemetry.stop()


@pytest.mark.parametrize(
    ("seen", "flags"),
    [
        ({}, set()),
        ({"others_cpu_share": judge.BUSY_SHARE, "gpu_shared_s": 0.0}, set()),
        ({"others_cpu_share": judge.BUSY_SHARE + 0.001}, {Flag.BUSY}),
        ({"gpu_shared_s": 0.5}, {Flag.SHARED_GPU}),
    ],
)
def test_the_flags_of_others(seen: dict[str, float], flags: set[Flag]) -> None:
    assert judge.flags_of_others(seen) == flags
    assert f"{100 * judge.BUSY_SHARE:.0f} %" in FLAG_MEANINGS[Flag.BUSY]
