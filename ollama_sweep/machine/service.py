"""A sweep as a service of the user, which goes on after a reboot: a systemd user unit or a launchd agent.

Texts are made without looking at the machine; `install` and `remove` put them in place. `run` is the same command at
every start: it goes on where it was, and ends at once when everything is done.
"""

from __future__ import annotations

import os
import plistlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.core.text import harmless, one_line
from ollama_sweep.machine import process, secrets
from ollama_sweep.machine.files import safe_name, write_whole

KINDS = ("systemd", "launchd")
KEPT_SETTINGS = ("PATH", "XDG_CACHE_HOME", "LANG")
"""Besides OLLAMA_* and LLAMA_ARG_*; a service starts with an environment of its own."""
SECRETS_FILE = ".config/ollama-sweep/environment"
COMMAND_S = 30.0

Command = Callable[[Sequence[str]], process.Completed | None]


@dataclass(frozen=True)
class Plan:
    """What is to run: the words of the command, where, with which settings, and where its output goes."""

    name: str
    words: tuple[str, ...]
    folder: Path
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The service's name on every system."""
        return f"ollama-sweep-{safe_name(self.name)}"


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a service must share with the terminal; nothing that holds passwords."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if (name in KEPT_SETTINGS or name == "OLLAMA_SWEEP_FAKE" or _is_setting(name))
        and not secrets.is_secret(name, value)
    }


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """The variables of this program that the service lacks because they carry a secret."""
    named = [name for name in sorted(environment) if name.startswith(("OLLAMA_", "LLAMA_ARG_", "LLM_"))]
    return [name for name in named if environment[name] and secrets.is_secret(name, environment[name])]


def _is_setting(name: str) -> bool:
    return name.startswith(("OLLAMA_", "LLAMA_ARG_")) and not name.startswith(("OLLAMA_SWEEP_", "OLLAMA_API"))


def unit(plan: Plan) -> str:
    """The text of a systemd user unit. Raises ConfigError for what a unit cannot hold."""
    for text in (*plan.words, *plan.settings.values(), str(plan.folder), str(plan.log), plan.name):
        if "\n" in text:
            raise ConfigError(f"a service file cannot hold a line break: {text!r}")
        if harmless(text) != text:
            raise ConfigError(f"a service file cannot hold a control character: {one_line(text)}")
    _refuse_secrets(plan)
    environment = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in plan.settings.items())
    return f"""\
# Written by `ollama-sweep service`; it starts the sweep and goes on with it after a reboot.
[Unit]
Description=ollama-sweep {_percents(plan.name)}
StartLimitIntervalSec=1h
StartLimitBurst=10

[Service]
Type=exec
WorkingDirectory={_percents(str(plan.folder))}
ExecStart={" ".join(_quoted(word, command=True) for word in plan.words)}
{environment}# Passwords stand apart: OLLAMA_SWEEP_NOTIFY=... in a file that only you can read.
EnvironmentFile=-%h/{SECRETS_FILE}
StandardOutput=append:{_percents(str(plan.log))}
StandardError=inherit
# SIGTERM to the sweep alone: it finishes its cell and ends what it has started.
KillMode=mixed
TimeoutStopSec=90
# 1 is a bug, 2 a wrong file, 3 another sweep: starting again would not help. Stopping it is no failure.
Restart=on-failure
RestartSec=60
RestartPreventExitStatus=1 2 3
SuccessExitStatus=129 130 143

[Install]
WantedBy=default.target
"""


def _refuse_secrets(plan: Plan) -> None:
    for word in plan.words:
        if secrets.masked(word) != word:
            raise ConfigError(f"{one_line(secrets.masked(word))} holds a secret, which a service file must not; "
                              f"set a variable of the environment in ~/{SECRETS_FILE}")  # fmt: skip


def _quoted(text: str, *, command: bool = False) -> str:
    """A word as systemd reads it back, %-signs and (in commands) $-signs doubled."""
    text = _percents(text.replace("\\", "\\\\").replace('"', '\\"'))
    if command:
        text = text.replace("$", "$$")
    return text if text and all(char.isalnum() or char in "/._-=:+,@%$" for char in text) else f'"{text}"'


def _percents(text: str) -> str:
    return text.replace("%", "%%")


def plist(plan: Plan) -> str:
    """The text of a launchd agent. Raises ConfigError for a secret."""
    _refuse_secrets(plan)
    content = {
        "Label": plan.label,
        "ProgramArguments": list(plan.words),
        "WorkingDirectory": str(plan.folder),
        "EnvironmentVariables": dict(plan.settings),
        "StandardOutPath": str(plan.log),
        "StandardErrorPath": str(plan.log),
        "RunAtLoad": True,
        "KeepAlive": {"Crashed": True},
        "ThrottleInterval": 60,
        "ExitTimeOut": 90,
        "ProcessType": "Interactive",
    }
    return plistlib.dumps(content, sort_keys=False).decode()


# -- in place --------------------------------------------------------------------------------------------------------


def run_command(words: Sequence[str]) -> process.Completed | None:
    """Run a system's own tool; None where it is not there."""
    if shutil.which(words[0]) is None:
        return None
    return process.run(words, timeout_s=COMMAND_S)


@dataclass(frozen=True)
class System:
    """The service manager of a user here: its kind, where its files lie, and how it is told."""

    kind: str
    folder: Path
    command: Command = run_command

    def file(self, plan: Plan) -> Path:
        return self.folder / f"{plan.label}{'.service' if self.kind == 'systemd' else '.plist'}"

    def text(self, plan: Plan) -> str:
        return unit(plan) if self.kind == "systemd" else plist(plan)

    def install(self, plan: Plan) -> Path:
        """Write the file, whole or not at all, and let the system know it. Raises StorageError, ConfigError."""
        file = self.file(plan)
        write_whole(file, self.text(plan).encode())
        if self.kind == "systemd":
            self._tell("systemctl", "--user", "daemon-reload")
            self._tell("systemctl", "--user", "enable", file.name)
        return file

    def start_words(self, plan: Plan) -> str:
        """The command that starts the installed service now."""
        if self.kind == "systemd":
            return f"systemctl --user start {self.file(plan).name}"
        return f"launchctl load -w '{self.file(plan)}'"

    def remove(self, plan: Plan) -> Path | None:
        """Take the file away; None where there was none. A run under systemd is not stopped. Raises StorageError."""
        file = self.file(plan)
        if not file.exists():
            return None
        if self.kind == "systemd":
            self._tell("systemctl", "--user", "disable", file.name)
        else:
            self.command(["launchctl", "unload", "-w", str(file)])
        try:
            file.unlink()
        except OSError as error:
            raise StorageError(f"{file}: cannot be removed ({error.strerror})") from error
        if self.kind == "systemd":
            self._tell("systemctl", "--user", "daemon-reload")
        return file

    def _tell(self, *words: str) -> None:
        done = self.command(words)
        if done is None or done.returncode != 0:
            said = " ".join((done.stderr if done else "it is not there").split())[:200]
            raise ConfigError(f"`{' '.join(words)}` did not work: {said}")


def this_system(home: Path, environment: Mapping[str, str] = os.environ, command: Command = run_command) -> System:
    """What starts services here. Raises ConfigError where there is neither systemd for users nor launchd."""
    if sys.platform == "darwin":
        return System("launchd", home / "Library/LaunchAgents", command)
    answer = command(["systemctl", "--user", "show-environment"])
    if answer is None or answer.returncode != 0:
        raise ConfigError(
            "neither systemd (for users) nor launchd answers here, so nothing can be installed. "
            "Start the sweep by hand after a reboot: ollama-sweep run CONFIG --detach"
        )
    folder = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return System("systemd", folder / "systemd/user", command)
