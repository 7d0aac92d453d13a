"""What the engine's processes take: real children are watched; sensors are folders and libraries of the test's own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ollama_fixture import until
from scripted_sensor import ScriptedSensor

from ollama_sweep.machine.sensing.find import find_sensors
from ollama_sweep.machine.sensing.gauge import Gauge
from ollama_sweep.machine.sensing.nvidia import NvidiaSmi, Nvml
from ollama_sweep.machine.sensing.processor import ProcessorHeat, Rapl
from ollama_sweep.machine.telemetry import NoTelemetry, Telemetry

MIB = 2**20
_HOLDS = """
import subprocess, sys
held = bytearray(int(sys.argv[1]) * 2**20)
for place in range(0, len(held), 4096): held[place] = 1
child = subprocess.Popen([sys.executable, "-c", sys.argv[3], sys.argv[2], "0", ""], stdin=subprocess.PIPE) \
    if sys.argv[3] else None
print("ready", flush=True)
sys.stdin.readline()
held = None
print("less", flush=True)
sys.stdin.readline()
"""
Holder = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def holder() -> Iterator[Holder]:
    """`holder(40, child=30)`: a process that holds 40 MiB, with a child that holds 30."""
    started: list[subprocess.Popen[bytes]] = []

    def start(mebibytes: int, child: int = 0) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", _HOLDS, str(mebibytes), str(child), _HOLDS if child else ""]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2 if child else 1)]
        assert said == [b"ready\n"] * len(said)
        return process

    yield start
    for process in started:
        family = [process.pid, *(child.pid for child in _children(process.pid))]
        for pid in family:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        process.communicate()


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else []


def let_go(process: subprocess.Popen[bytes]) -> None:
    """It frees what it holds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"less\n"


def watch(*pids: int, **changes: Any) -> Telemetry:
    return Telemetry(lambda: pids, **{"sensors": (), **changes})


# -- memory ----------------------------------------------------------------------------------------------------------


def test_children_count(holder: Holder) -> None:
    telemetry = watch(holder(40, child=30).pid)
    telemetry.start()
    peak = telemetry.stop()["peak_rss_bytes"]
    assert 70 * MIB < peak < 140 * MIB


def test_a_process_that_is_named_twice_counts_once(holder: Holder) -> None:
    process = holder(40, child=30)
    telemetry = watch(process.pid, *(child.pid for child in _children(process.pid)), process.pid)
    telemetry.start()
    assert telemetry.stop()["peak_rss_bytes"] < 140 * MIB


def test_a_mark_begins_a_new_peak_and_the_peak_of_all_stays(holder: Holder) -> None:
    process = holder(80)
    telemetry = watch(process.pid)
    telemetry.start()
    telemetry.mark()
    first = telemetry.peak_since_mark()
    let_go(process)
    telemetry.mark()
    second = telemetry.peak_since_mark()
    assert first is not None
    assert second is not None
    assert first - second > 70 * MIB
    assert telemetry.stop()["peak_rss_bytes"] >= first


def test_what_happens_between_two_looks_of_the_caller_is_seen_by_the_thread() -> None:
    """This process takes memory and frees it again before anybody asks."""
    telemetry = watch(psutil.Process().pid, every_s=0.001, step_s=0.001)
    telemetry.start()
    before = telemetry.peak_since_mark()
    held = bytearray(b"x" * 100 * MIB)
    until("it was seen", lambda: telemetry.series().lines["rss_bytes"].high > (before or 0) + 90 * MIB)
    del held
    after = telemetry.peak_since_mark()
    assert before is not None
    assert after is not None
    assert after - before > 90 * MIB
    telemetry.stop()


def test_an_engine_that_was_started_again_is_found_at_the_next_mark(holder: Holder) -> None:
    first, second = holder(10), holder(50)
    living = [first.pid]
    telemetry = Telemetry(lambda: tuple(living), sensors=())
    telemetry.start()
    first.kill()
    first.wait()
    living[:] = [second.pid]
    telemetry.mark()
    peak = telemetry.peak_since_mark()
    assert peak is not None
    assert peak > 50 * MIB
    telemetry.stop()


def test_nothing_is_known_of_no_process() -> None:
    for pids in ((), (2**22 + 1,)):
        telemetry = watch(*pids)
        telemetry.start()
        telemetry.mark()
        assert telemetry.peak_since_mark() is None
        assert telemetry.stop() == {}


@pytest.fixture
def restless() -> Iterator[None]:
    """Python goes from thread to thread as often as it can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_it_never_raises_and_leaves_no_thread(restless: None) -> None:
    def broken() -> tuple[int, ...]:
        raise RuntimeError("the engine is gone")

    before = set(threading.enumerate())
    for _ in range(30):
        telemetry = Telemetry(broken, sensors=(ScriptedSensor([RuntimeError("no driver")]),))
        telemetry.mark()
        telemetry.start()
        telemetry.start()
        telemetry.mark()
        assert telemetry.peak_since_mark() is None
        assert telemetry.stop() == {}
        assert telemetry.stop() == {}
        assert set(threading.enumerate()) <= before


def test_stopping_without_a_start_is_nothing() -> None:
    assert watch(1).stop().keys() <= {"peak_rss_bytes"}
    nothing = NoTelemetry()
    nothing.start()
    nothing.mark()
    assert (nothing.peak_since_mark(), nothing.stop()) == (None, {})


def test_this_machine_has_sensors_or_has_none() -> None:
    telemetry = Telemetry(lambda: (psutil.Process().pid,))
    telemetry.start()
    found = telemetry.stop()
    known = {"peak_rss_bytes", "peak_vram_bytes", "energy_j", "cpu_energy_j", "gpu_energy_j", "throttled_s",
             "gpu_shared_s", "mean_power_w", "peak_gpu_celsius"}  # fmt: skip
    assert "peak_rss_bytes" in found
    assert set(found) <= known
    assert all(value >= 0 for value in found.values())


# -- energy and GPUs -------------------------------------------------------------------------------------------------


def read_all(*sensors: ScriptedSensor) -> dict[str, float]:
    """What a watch says that lasts until every step was read."""
    telemetry = Telemetry(lambda: (), sensors=sensors, every_s=0.001)
    telemetry.start()
    until("all steps are read", lambda: all(len(sensor.steps) == 1 for sensor in sensors))
    return telemetry.stop()


def test_a_counter_gives_energy_and_the_largest_memory_is_kept() -> None:
    gpu = ScriptedSensor(
        [{"0": Gauge(1000.0, None, 5 * MIB)}, {"0": Gauge(1004.0, None, 9 * MIB)}, {"0": Gauge(1010.0, None, 2)}]
    )
    cpu = ScriptedSensor([{"package": Gauge(5.0)}, {"package": Gauge(8.0)}], kind="cpu")
    found = read_all(gpu, cpu)
    assert found.pop("mean_power_w") > 0
    assert found == {"peak_vram_bytes": 9.0 * MIB, "gpu_energy_j": 10.0, "cpu_energy_j": 3.0, "energy_j": 13.0}


def test_power_is_summed_over_time() -> None:
    begun = time.monotonic()
    found = read_all(
        ScriptedSensor([{"0": Gauge(power_w=100.0)}, {"0": Gauge(power_w=200.0)}, {"0": Gauge(power_w=100.0)}])
    )
    assert 0 < found["energy_j"] < 200 * (time.monotonic() - begun)
    assert "peak_vram_bytes" not in found


def test_a_sensor_that_says_nothing_gives_no_number() -> None:
    assert read_all(ScriptedSensor([{"0": Gauge()}, {"0": Gauge()}])) == {}


def test_a_sensor_that_fails_is_left_alone() -> None:
    broken = ScriptedSensor([{"0": Gauge(1.0)}, RuntimeError("gone"), {"0": Gauge(99.0)}])
    telemetry = Telemetry(lambda: (), sensors=(broken,), every_s=0.001)
    telemetry.start()
    until("it has failed", lambda: len(broken.steps) == 1)
    assert telemetry.stop() == {}
    assert telemetry.newly_lost() == ("a script",)
    again = Telemetry(lambda: (), sensors=(broken,), every_s=0.001)
    again.start()
    assert (again.stop(), again.newly_lost()) == ({}, ())
    assert len(broken.pids) == 2, "the next cell does not ask it again, and the person was told once"


@pytest.mark.parametrize(("throttled", "lasts"), [(True, True), (False, False)])
def test_the_time_with_lowered_clocks(throttled: bool, lasts: bool) -> None:
    """What was before the first reading is another cell's."""
    found = read_all(ScriptedSensor([{"0": Gauge(is_throttled=True)}, {"0": Gauge(is_throttled=throttled)}]))
    assert (found["throttled_s"] > 0) is lasts


@pytest.mark.parametrize(
    ("steps", "is_shared"),
    [
        ([False, False], False),
        ([False, True, False], True),
        ([True, False], True),
        ([None, False], False),
        ([None, True], True),
        ([None, None], None),
    ],
)
def test_the_time_with_another_program_on_the_gpu(steps: list[bool | None], is_shared: bool | None) -> None:
    """What nobody knows is no number."""
    found = read_all(ScriptedSensor([{"0": Gauge(is_shared=step)} for step in steps]))
    assert ("gpu_shared_s" in found) is (is_shared is not None)
    assert (found.get("gpu_shared_s", 0.0) > 0) is bool(is_shared)


def test_the_processors_heat_is_what_its_counters_add(tmp_path: Path) -> None:
    counters = []
    for core in (0, 1):
        folder = tmp_path / f"cpu{core}" / "thermal_throttle"
        folder.mkdir(parents=True)
        counters.append(folder / "package_throttle_count")
        counters[-1].write_text("7\n")
    sensor = ProcessorHeat(tmp_path)
    assert sensor.read(frozenset()) == {"processor": Gauge(is_throttled=False)}
    counters[1].write_text("9\n")
    assert sensor.read(frozenset()) == {"processor": Gauge(is_throttled=True)}
    assert sensor.read(frozenset()) == {"processor": Gauge(is_throttled=False)}
    assert ProcessorHeat(tmp_path / "none").read(frozenset()) == {}


def zone(folder: Path, name: str, called: str, microjoules: int) -> Path:
    made = folder / name
    made.mkdir()
    (made / "name").write_text(f"{called}\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    (made / "max_energy_range_uj").write_text("1000000000\n")
    return made


def test_the_processors_packages_are_read_and_their_parts_are_not(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 1)
    zone(tmp_path, "intel-rapl:1", "psys", 1)
    (tmp_path / "intel-rapl").mkdir()
    sensor = Rapl(tmp_path)
    assert sensor.read(frozenset()) == {"intel-rapl:0": Gauge(999.0)}
    (package / "energy_uj").write_text("2000000\n")
    assert sensor.read(frozenset()) == {"intel-rapl:0": Gauge(1002.0)}, "the counter began again at zero"


def test_a_counter_that_may_not_be_read_is_no_zero(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (package / "energy_uj").unlink()
    telemetry = Telemetry(lambda: (), sensors=(Rapl(tmp_path),))
    telemetry.start()
    assert (telemetry.stop(), telemetry.newly_lost()) == ({}, ()), "what never answered is no loss"
    assert Rapl(tmp_path / "none").read(frozenset()) == {}


class _Library:
    """Two GPUs as `pynvml` shows them; the second one has no energy counter, and process 42 computes on it."""

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the library's name
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        if handle == 1:
            raise self.NVMLError
        return 2500

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return 70_000

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=(handle + 1) * MIB)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:  # noqa: N802
        return (0x20, 0x04)[handle]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=42)] if handle == 1 else []


def test_the_gpus_of_the_engine_count_where_the_driver_names_them() -> None:
    sensor = Nvml(_Library())
    everything = {"0": Gauge(2.5, None, MIB, True), "1": Gauge(None, 70.0, 2 * MIB, False)}
    assert sensor.read(frozenset()) == everything
    assert sensor.read(frozenset({42, 7})) == {"1": replace(everything["1"], is_shared=False)}
    assert sensor.read(frozenset({7})) == everything


def test_a_card_that_has_failed_does_not_hide_the_others() -> None:
    class Lost(_Library):
        def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
            if index == 0:
                raise self.NVMLError("GPU is lost")
            return index

    assert Nvml(Lost()).read(frozenset()) == {"1": Gauge(None, 70.0, 2 * MIB, False)}


def test_nvidia_smi_is_asked_where_the_library_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, 61.25, 1024, 0x44'\necho '1, [N/A], [N/A], [N/A]'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    sensor = NvidiaSmi()
    assert sensor.read(frozenset()) == {"0": Gauge(None, 61.25, 1024 * MIB, True), "1": Gauge()}
    program.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert sensor.read(frozenset()) == {}


def test_a_driver_that_shows_no_gpu_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library works in this very process, so a driver that hangs would hang the sweep."""
    library = tmp_path / "pynvml.py"
    library.write_text("raise SystemExit('the driver was opened')\n")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    for path in (f"{tmp_path}:/bin:/usr/bin", str(tmp_path / "none")):
        monkeypatch.setenv("PATH", path)
        assert not any(sensor.kind == "gpu" for sensor in find_sensors.__wrapped__())
    program.write_text("#!/bin/sh\necho 0\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(SystemExit, match="was opened"):
        find_sensors.__wrapped__()


# -- over time, and sensors that stand still -------------------------------------------------------------------------


def test_a_reading_that_stands_still_costs_itself_only() -> None:
    """Not the other sensors, not the memory, not the cell; it is told of once, and never asked again."""
    never = threading.Event()
    stands = ScriptedSensor([{"0": Gauge(power_w=70.0)}, never], stands_patience_s=0.0, name="the driver")
    other = ScriptedSensor([{"package": Gauge(float(step))} for step in range(5)], kind="cpu")
    telemetry = Telemetry(lambda: (psutil.Process().pid,), sensors=(stands, other), every_s=0.001, step_s=0.001)
    try:
        telemetry.start()
        until("it is given up", lambda: stands.is_off and len(other.steps) == 1)
        found = telemetry.stop()
        assert found["cpu_energy_j"] == 4.0
        assert {"peak_rss_bytes", "energy_j"} <= set(found)
        assert "gpu_energy_j" not in found
        assert (telemetry.newly_lost(), telemetry.newly_lost()) == (("the driver",), ())
        again = Telemetry(lambda: (), sensors=(stands, other), every_s=0.001)
        again.start()
        again.stop()
        assert (len(stands.pids), again.newly_lost()) == (2, ())
    finally:
        never.set()


def test_a_reading_that_outlives_its_cell_is_not_begun_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may yet end by itself; until then the next cell goes without it."""
    monkeypatch.setattr("ollama_sweep.machine.telemetry.STOP_S", 0.0)
    goes_on = threading.Event()
    slow = ScriptedSensor([goes_on, {"0": Gauge(celsius=50.0)}], name="the driver")
    for _ in range(2):
        telemetry = watch(sensors=(slow,), every_s=0.001)
        telemetry.start()
        until("it is read", lambda: bool(slow.pids))
        assert telemetry.stop() == {}
        assert (len(slow.pids), slow.is_off, telemetry.newly_lost()) == (1, False, ())
    goes_on.set()
    until(
        "nobody reads it any more",
        lambda: not any(thread.name.startswith("sensor") for thread in threading.enumerate()),
    )
    assert read_all(slow)["peak_gpu_celsius"] == 50.0


def test_a_driver_that_hangs_where_it_is_looked_for_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr("ollama_sweep.machine.sensing.find.FIND_S", 0.05)
    monkeypatch.setattr(Rapl, "read", lambda self, pids: never.wait())
    try:
        found = find_sensors.__wrapped__()
        telemetry = Telemetry(lambda: (), sensors=found)
        telemetry.start()
        telemetry.stop()
        assert "the processor's energy counter" in telemetry.newly_lost()
    finally:
        never.set()


def test_what_a_load_takes_is_in_the_series_and_not_in_the_numbers() -> None:
    gpu = ScriptedSensor([{"0": Gauge(10.0, None, 9 * MIB, celsius=90.0)}])
    telemetry = Telemetry(lambda: (), sensors=(gpu,), every_s=0.001, step_s=0.001)
    telemetry.begin_load()
    until("the load is seen", lambda: "gpu_used_bytes" in telemetry.series().lines)
    gpu.steps[:] = [{"0": Gauge(500.0, None, 5 * MIB, celsius=60.0)}, {"0": Gauge(503.0, None, 5 * MIB, celsius=61.0)}]
    until("the load is over", lambda: len(gpu.steps) == 1)
    telemetry.start()
    gpu.steps[:] = [{"0": Gauge(503.0, None, 6 * MIB, celsius=61.0)}, {"0": Gauge(504.0, None, 4 * MIB, celsius=59.0)}]
    until("runs are seen", lambda: len(gpu.steps) == 1)
    telemetry.begin_runs()
    found, series = telemetry.stop(), telemetry.series()
    assert (found["peak_vram_bytes"], found["energy_j"], found["peak_gpu_celsius"]) == (6 * MIB, 1.0, 61.0)
    assert series.lines["gpu_celsius"].high == 90.0
    assert 0 < (series.counts_from_s or 0) <= (series.runs_from_s or 0)
    assert series.lines["used_bytes"].low > 0
    assert 0 <= series.lines["cpu_share"].low <= series.lines["cpu_share"].high <= 1


def test_nothing_is_known_over_time_of_a_watch_that_never_began() -> None:
    assert watch(1).series().lines == {}
    assert NoTelemetry().series().lines == {}
    telemetry = watch()
    telemetry.begin_load()
    assert telemetry.stop() == {}


@pytest.mark.parametrize("every_s", [0.0, 10.0])
def test_however_short_a_cell_is_what_counts_has_a_first_and_a_last_reading(every_s: float) -> None:
    """Also where it is over before a thread has read anything; a load that short is not worth a program."""
    for loads in (True, False):
        gpu = ScriptedSensor([{"0": Gauge(float(step), is_shared=True)} for step in range(9)], every_s=every_s)
        telemetry = Telemetry(lambda: (), sensors=(gpu,))
        if loads:
            telemetry.begin_load()
        telemetry.start()
        found = telemetry.stop()
        assert (found["energy_j"] >= 1.0, found["gpu_shared_s"] > 0) == (True, True)
        assert len(gpu.pids) == 2 or not every_s
