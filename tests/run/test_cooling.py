"""A rest between cells: for a time, or until the GPUs are cool; a scripted driver says how warm they are."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
from detached_runs import call, detached, is_gone
from ollama_fixture import until
from sweeping import Program, json_of
from sweeping import program as program  # a fixture

from ollama_sweep.core.errors import ConfigError, Stopped
from ollama_sweep.core.events import Event, GoingOn, Notice, OnHold
from ollama_sweep.core.outcome import FLAG_MEANINGS, Flag
from ollama_sweep.engines.base import EngineInfo
from ollama_sweep.machine import computer
from ollama_sweep.machine.sensing import thermometer
from ollama_sweep.machine.sensing.amd_gpus import AmdCards
from ollama_sweep.machine.sensing.gauge import Gauge
from ollama_sweep.machine.sensing.thermometer import Thermometer
from ollama_sweep.plan.spec import Cooldown, PromptSpec, SweepSpec
from ollama_sweep.run import cooling
from ollama_sweep.run.stopping import Stopping


def statuses(program: Program) -> list[str]:
    return [row["status"] for row in program.rows()]


def driver(program: Program, celsius: str) -> dict[str, str]:
    """An environment whose `nvidia-smi` has two GPUs; the first one is as warm as the file `heat` says."""
    (program.folder / "heat").write_text(celsius)
    file = program.folder / "bin" / "nvidia-smi"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f"#!/bin/sh\nheat=$(cat {program.folder / 'heat'})\ncase $1 in *=index) echo 0; echo 1;;\n"
        '*=index,name,temperature*) echo "0, A, $heat, 0, 0x0"; echo "1, A, 90, 0, 0x0";; esac\n',
        "utf-8",
    )
    file.chmod(0o755)
    return {"PATH": f"{file.parent}:/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "0"}


# -- for a time ------------------------------------------------------------------------------------------------------


def test_it_rests_between_cells_and_not_before_the_first(program: Program) -> None:
    """The control cell, measured again after the third, is a cell like any other."""
    for control, at in (("off", []), (3, [3])):
        config = program.grid(cooldown="20ms", control=control, second_look="off")
        lines = program("run", config, "--db", f"{control}.db").must().stdout.splitlines()
        words = ("On hold: resting", "Going on", "/4  num_ctx")
        told = [word for line in lines for word in (*words, "control cell") if word in line]
        wanted = ["/4  num_ctx", *words * 3]
        for place in at:
            wanted[3 * place - 2 : 3 * place - 2] = [*words[:2], "control cell"]
        assert told == wanted


def test_status_says_what_it_rests_for_and_for_how_long_and_stop_ends_it(program: Program) -> None:
    running = detached(program, program.grid(cooldown="2h"))

    def resting() -> str | None:
        return str(json_of(program("status", "--json"))["waiting"]) or None

    assert until("it rests", resting) == "on hold: resting 2 h 0 min between cells (cooldown)"
    found = json_of(program("status", "--json"))
    assert 3 * 7200 <= found["seconds_left"] < 4 * 7200, "all three rest"
    call(program, "stop").must()
    assert is_gone(running)
    assert statuses(program) == ["ok", "pending", "pending", "pending"]
    assert 2 * 7200 <= json_of(program("status", "--json"))["seconds_left"] < 3 * 7200, "the first of a run does not"
    assert 2 * 7200 <= json_of(program("plan", program.grid(cooldown="2h"), "--json"))["seconds_left"] < 3 * 7200
    assert json_of(program("plan", program.grid(), "--json"))["seconds_left"] < 7200


def test_a_sweep_without_one_rests_never(program: Program) -> None:
    for keys in ({}, {"cooldown": "off"}):
        assert "resting" not in program("run", program.grid(**keys)).must().stdout


# -- until the GPUs are cool -----------------------------------------------------------------------------------------


def test_a_gpu_that_stays_warm_is_a_flag_of_the_cells_that_waited(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cooling, "MOST_S", 0.0)
    ended = program("run", program.grid(cooldown={"gpu_c": 60}), env=driver(program, "71")).must()
    assert [row["flags"] for row in program.rows()] == ["", "warm", "warm", "warm"]
    assert ended.stdout.count("Warning: the GPU is at 71") == 3
    assert f"warm: {FLAG_MEANINGS[Flag.WARM]}" in program("best").must().stdout
    assert f"flag   warm: {FLAG_MEANINGS[Flag.WARM]}" in program("explain", "1").must().stdout


def test_a_gpu_that_is_cool_enough_holds_up_nothing(program: Program) -> None:
    """The other GPU is warmer and is not the engine's."""
    ended = program("run", program.grid(cooldown={"gpu_c": 60}), env=driver(program, "60")).must()
    assert "On hold" not in ended.stdout
    assert not any(row["flags"] for row in program.rows())


@pytest.mark.parametrize("celsius", ["", "[N/A]"])
def test_without_a_sensor_nothing_is_made(program: Program, celsius: str) -> None:
    before = program.files()
    environment = driver(program, celsius) if celsius else {"PATH": "/usr/bin:/bin"}
    before |= program.files()
    ended = program("run", program.grid(cooldown={"gpu_c": 60}), env=environment).must(2)
    (line,) = ended.stderr.splitlines()
    why = "needs a GPU that says its temperature, and none here does; write a time such as 30s"
    assert line == f"error: cooldown: {{gpu_c: 60}} {why}"
    assert program.files() - before == {"grid.yaml"}
    said = program("plan", program.grid(cooldown={"gpu_c": 60}), env=environment).must().stdout
    assert "no GPU here says how warm it is, so a run is refused" in said


def test_the_gpus_of_another_computer_cannot_be_seen() -> None:
    spec = SweepSpec("m", {}, PromptSpec("x"), cooldown=Cooldown(gpu_c=60))
    with pytest.raises(ConfigError, match=r"how warm the GPUs at http://gpu-box:11434 are cannot be seen from here"):
        cooling.celsius_of(spec, EngineInfo("ollama_http", "0.34.0", "http://gpu-box:11434"))


class Scripted:
    """A cool-down to 60 °C whose GPUs say these things one after the other; what a person is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Mapping[str, float]) -> None:
        monkeypatch.setattr(cooling, "AGAIN_S", 0.0)
        self.steps, self.told, self.stopping = list(steps), list[Event](), Stopping()
        self.cooling = cooling.CoolDown(Cooldown(gpu_c=60), self.celsius, self.stopping, self.told.append)
        self.cooling.before_cell()
        self.cooling.after_cell()

    def celsius(self) -> Mapping[str, float]:
        return self.steps.pop(0)

    def next_cell(self) -> list[str]:
        """What is told before the next cell."""
        self.told.clear()
        self.cooling.before_cell()
        return [event.reason if isinstance(event, OnHold) else event.text if isinstance(event, Notice) else "on"
                for event in self.told if isinstance(event, OnHold | Notice | GoingOn)]  # fmt: skip


def test_it_waits_until_every_gpu_is_cool(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Scripted(monkeypatch, {"0": 40, "1": 40}, {"0": 55, "1": 80}, {"0": 61, "1": 60}, {"0": 60, "1": 60})
    assert made.next_cell() == ["the GPU cools down from 80 to 60 °C (cooldown)", "on"]
    assert (made.steps, made.cooling.is_warm) == ([], False)


def test_a_sensor_that_is_lost_on_the_way_is_said_once_and_flags_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"0": 50.0, "1": 50.0}
    made = Scripted(monkeypatch, known, {"0": 70, "1": 70}, {}, {"0": 50.0}, known, {"1": 10.0})
    lost = "Warning: the GPU no longer says how warm it is: cells are measured without a cool-down, with the flag warm"
    assert made.next_cell() == ["the GPU cools down from 70 to 60 °C (cooldown)", lost, "on"]
    assert made.cooling.is_warm
    assert (made.next_cell(), made.cooling.is_warm) == ([], True), "one of two is not all of them"
    assert (made.next_cell(), made.cooling.is_warm) == ([], False), "it is back"
    assert (made.next_cell(), made.cooling.is_warm) == ([lost], True)


def test_a_stop_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Scripted(monkeypatch, {"0": 50}, {"0": 70})
    made.stopping.stop()
    monkeypatch.setattr(cooling, "AGAIN_S", 3600.0)
    with pytest.raises(Stopped):
        made.next_cell()


# -- who says it -----------------------------------------------------------------------------------------------------


def thermometer_of(program: Program, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Thermometer:
    monkeypatch.setenv("PATH", driver(program, "44")["PATH"])
    return Thermometer(settings)


def test_only_the_gpus_count_that_the_engine_may_use(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    assert thermometer_of(program, monkeypatch).celsius() == {"GPU 0": 44.0, "GPU 1": 90.0}
    assert thermometer_of(program, monkeypatch, CUDA_VISIBLE_DEVICES="1").celsius() == {"GPU 1": 90.0}


def amd_card(folder: Path, number: int, celsius: int) -> None:
    hwmon = folder / f"card{number}" / "device" / "hwmon" / "hwmon0"
    hwmon.mkdir(parents=True)
    (hwmon / "temp1_input").write_text(f"{celsius}000\n")
    (folder / f"card{number}" / "device" / "vendor").write_text("0x1002\n")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"card0", "card1"}),
        ({"HIP_VISIBLE_DEVICES": "1"}, {"card1"}),
        ({"ROCR_VISIBLE_DEVICES": "GPU-8f"}, {"card0", "card1"}),
    ],
)
def test_amds_driver_is_asked_where_nvidias_is_absent(
    settings: dict[str, str], names: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    amd_card(tmp_path, 0, 41)
    amd_card(tmp_path, 1, 52)
    monkeypatch.setattr(computer, "has_nvidia", lambda: False)
    monkeypatch.setattr(thermometer, "AmdCards", partial(AmdCards, tmp_path))
    assert set(Thermometer(settings).celsius()) == names


def test_a_driver_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    never, asked = threading.Event(), list[int]()

    class Hangs(AmdCards):
        patience_s = 0.0

        def read(self, pids: frozenset[int]) -> dict[str, Gauge]:
            asked.append(1)
            never.wait()
            return {}

    monkeypatch.setattr(computer, "has_nvidia", lambda: False)
    monkeypatch.setattr(thermometer, "AmdCards", Hangs)
    monkeypatch.setattr(thermometer, "PATIENCE_S", 0.05)
    found = Thermometer({})
    try:
        assert (found.celsius(), found.celsius()) == ({}, {})
        until("it was asked", lambda: bool(asked))
        assert len(asked) == 1
    finally:
        never.set()
