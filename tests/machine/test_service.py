"""A sweep as a service: texts that systemd and launchd read back as they were meant, and their way into place."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ollama_fixture import ROOT
from sweep_runner import Ended
from sweeping import Program, program

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.machine.service import Plan, System, plist, settings_of, unit

PLAN = Plan(
    name="night run",
    words=("/usr/bin/python3", "/opt/sweep.py", "run", "a b.yaml", "--set", 'name=50% "of" $HOME\\x'),
    folder=Path("/home/me/sweeps 100%"),
    log=Path("/home/me/sweeps 100%/sweeps.db.log"),
    settings={"PATH": "/usr/bin:/home/me/my bin", "OLLAMA_HOST": "127.0.0.1:11434"},
)
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "{log}"
exit {code}
"""


def lines_of(text: str, key: str) -> list[str]:
    """The values of a key in a unit."""
    return [line.removeprefix(f"{key}=") for line in text.splitlines() if line.startswith(f"{key}=")]


def read_back(command: str) -> list[str]:
    """The words of an ExecStart line as systemd.syntax(7) and systemd.unit(5) say that they are read."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(command)]


# -- texts -----------------------------------------------------------------------------------------------------------


def test_a_unit_keeps_every_word_of_the_command() -> None:
    assert read_back(lines_of(unit(PLAN), "ExecStart")[0]) == list(PLAN.words)


def test_a_unit_says_where_with_which_settings_and_where_output_goes() -> None:
    text = unit(PLAN)
    assert lines_of(text, "WorkingDirectory") == ["/home/me/sweeps 100%%"]
    assert lines_of(text, "StandardOutput") == ["append:/home/me/sweeps 100%%/sweeps.db.log"]
    assert lines_of(text, "Environment") == ['"PATH=/usr/bin:/home/me/my bin"', "OLLAMA_HOST=127.0.0.1:11434"]


def test_a_stopped_or_refused_sweep_is_not_started_again_by_systemd() -> None:
    text = unit(PLAN)
    assert lines_of(text, "Restart") == ["on-failure"]
    assert {"129", "130", "143"} <= set(lines_of(text, "SuccessExitStatus")[0].split())
    assert {"2", "3"} <= set(lines_of(text, "RestartPreventExitStatus")[0].split())


def test_a_unit_is_one_that_systemd_accepts(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    words = (sys.executable, str(ROOT / "sweep.py"), "run", "a b.yaml", "--set", "name=50%")
    file = tmp_path / "ollama-sweep-x.service"
    file.write_text(unit(Plan("x", words, tmp_path, tmp_path / "x.log", {"PATH": "/usr/bin:/my bin"})), "utf-8")
    done = subprocess.run([analyze, "verify", "--man=no", str(file)], capture_output=True, text=True, check=False)
    assert "ollama-sweep-x.service" not in done.stderr, done.stderr


def test_a_launchd_agent_reads_back_as_it_was_meant() -> None:
    found = plistlib.loads(plist(PLAN).encode())
    assert found["ProgramArguments"] == list(PLAN.words)
    assert found["WorkingDirectory"] == str(PLAN.folder)
    assert found["EnvironmentVariables"] == dict(PLAN.settings)
    assert found["RunAtLoad"] is True
    assert found["KeepAlive"] == {"Crashed": True}


def test_a_line_break_cannot_be_smuggled_into_a_unit() -> None:
    with pytest.raises(ConfigError, match="cannot hold a line break"):
        unit(Plan("x", ("run", "a\nExecStartPre=evil"), Path("/"), Path("/x.log")))


def test_a_service_gets_the_settings_of_the_terminal_but_no_secrets() -> None:
    environment = {
        "PATH": "/bin", "OLLAMA_HOST": "h", "OLLAMA_MODELS": "/m", "LLAMA_ARG_FIT": "off",
        "OLLAMA_SWEEP_NOTIFY": "mailto://me:word@host", "OLLAMA_API_KEY": "word", "HOME": "/root", "TOKEN": "word",
    }  # fmt: skip
    assert set(settings_of(environment)) == {"PATH", "OLLAMA_HOST", "OLLAMA_MODELS", "LLAMA_ARG_FIT"}


# -- as a person sees it ---------------------------------------------------------------------------------------------


class Machine:
    """A computer whose systemctl writes down what it is told."""

    def __init__(self, program: Program, code: int = 0) -> None:
        self._program = program
        self.told = program.folder / "systemctl.txt"
        self.home = program.folder / "home"
        self.units = self.home / ".config/systemd/user"
        folder = program.folder / "bin"
        folder.mkdir(exist_ok=True)
        tool = folder / "systemctl"
        tool.write_text(SYSTEMCTL.format(log=self.told, code=code), "utf-8")
        tool.chmod(0o755)
        self._path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def __call__(self, *words: str | Path) -> Ended:
        environment = {**self._program.environment(), "PATH": self._path, "HOME": str(self.home), "XDG_CONFIG_HOME": ""}
        return self._program.start("service", *words, env=environment).wait()


linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has launchd")


@linux
def test_service_prints_the_unit_and_installs_nothing(program: Program) -> None:
    machine = Machine(program)
    ended = machine(program.grid("night"), "--db", "big.db", "--timeout", "20m").must()
    words = read_back(lines_of(ended.stdout, "ExecStart")[0])
    assert words[0] == sys.executable
    assert words[1:3] == [str(program.file), "run"]
    assert words[3:] == [str(program.folder / "night.yaml"), "--db", "big.db", "--timeout", "20m"]
    assert lines_of(ended.stdout, "WorkingDirectory") == [str(program.folder)]
    assert lines_of(ended.stdout, "StandardOutput") == [f"append:{program.folder / 'big.db.log'}"]
    assert "--install" in ended.stderr
    assert not machine.home.exists()


@linux
def test_an_installed_service_runs_the_sweep_and_can_be_removed(program: Program) -> None:
    machine = Machine(program)
    config = program.grid("night")
    said = machine(config, "--install").must().stdout
    file = machine.units / "ollama-sweep-night.service"
    assert f"Installed: {file}" in said
    assert "systemctl --user start ollama-sweep-night.service" in said
    assert "--remove" in said
    told = machine.told.read_text().splitlines()
    assert told[-2:] == ["--user daemon-reload", "--user enable ollama-sweep-night.service"]

    words = read_back(lines_of(file.read_text("utf-8"), "ExecStart")[0])
    environment = dict(line.strip('"').split("=", 1) for line in lines_of(file.read_text("utf-8"), "Environment"))
    subprocess.run(words, cwd=program.folder, env={**environment, "HOME": str(machine.home)}, check=True,
                   capture_output=True)  # fmt: skip
    assert len(program.rows()) == 4

    assert f"Removed: {file}" in machine(config, "--remove").must().stdout
    assert not file.exists()
    again = machine(config, "--remove").must(2)
    assert again.stderr.startswith("error: --remove: nothing is installed for sweep night")


@linux
def test_installing_again_replaces_the_old_file_whole(program: Program) -> None:
    machine = Machine(program)
    config = program.grid("night")
    machine(config, "--install").must()
    machine(config, "--install", "--timeout", "30m").must()
    (file,) = machine.units.iterdir()
    assert "--timeout 30m" in file.read_text("utf-8")
    assert not stat.S_IMODE(file.stat().st_mode) & stat.S_IWOTH


@linux
@pytest.mark.parametrize("words", [(), ("--install",), ("--remove",)])
def test_without_systemd_or_launchd_it_is_one_line(program: Program, words: tuple[str, ...]) -> None:
    machine = Machine(program, code=1)
    ended = machine(program.grid(), *words).must(2)
    assert ended.stderr.startswith("error: neither systemd (for users) nor launchd answers here")
    assert len(ended.stderr.splitlines()) == 1
    assert not machine.home.exists()


def test_both_texts_can_be_seen_everywhere(program: Program) -> None:
    machine = Machine(program, code=1)
    assert "[Service]" in machine(program.grid(), "--for", "systemd").must().stdout
    assert plistlib.loads(machine(program.grid(), "--for", "launchd").must().stdout.encode())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.yaml"], "missing.yaml: file not found"),
        (["grid.yaml", "--set", "repeats=-1"], "repeats must be 1 to 1000"),
        (["grid.yaml", "--nonsense"], "No such option"),
        (["grid.yaml", "--detach"], "a service needs no --detach"),
    ],
)
def test_what_run_would_refuse_is_refused_here(program: Program, words: list[str], said: str) -> None:
    program.grid()
    ended = Machine(program)(*words, "--install").must(2)
    assert said in ended.stderr
    assert not (program.folder / "home").exists()


def test_launchd_is_told_in_its_own_words(tmp_path: Path) -> None:
    told: list[list[str]] = []
    system = System("launchd", tmp_path, lambda words: told.append(list(words)))
    file = system.install(PLAN)
    assert file.name.startswith("ollama-sweep-night-run")
    assert file.suffix == ".plist"
    assert system.start_words(PLAN) == f"launchctl load -w '{file}'"
    assert system.remove(PLAN) == file
    assert told == [["launchctl", "unload", "-w", str(file)]]
    assert system.remove(PLAN) is None


def test_a_home_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", "utf-8")
    with pytest.raises(StorageError, match="cannot be written"):
        System("systemd", blocked / "systemd").install(PLAN)
