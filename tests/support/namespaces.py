"""Computers for a test: network namespaces on one bridge, each of which can be cut off from all others.

`network.host("a")` is a computer with an address of its own; programs started there know no other network. `cut` pulls
its cable: packets are lost without a word, as between two buildings, and `join` plugs it in again. The test itself is
on the bridge as well. Needs root and iproute2. Everything is gone with the fixture; what a killed test run left is
removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from ollama_fixture import END_S, ROOT, clean_environment, skip_outside_ci

OURS = "sweep-test"
NETS = "198.18"
"""Of the addresses that are kept for trying out networks (RFC 2544): nobody's."""
HERE, MOST_NETS = 1, 256
_NUMBERS = itertools.count()


class NoNetwork(Exception):
    """The reason why no namespace can be made here."""


def _ip(*words: str) -> str:
    """What `ip` says. Raises NoNetwork."""
    try:
        done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True, timeout=END_S)
    except FileNotFoundError:
        raise NoNetwork("iproute2 is not installed") from None
    if done.returncode != 0:
        raise NoNetwork(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Host:
    """A computer of the network."""

    def __init__(self, name: str, namespace: str, hub: str, address: str) -> None:
        self.name, self.address = name, address
        self._namespace, self._hub = namespace, hub
        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, *words: str | Path) -> list[str]:
        """A command line that runs another one on this computer."""
        return ["ip", "netns", "exec", self._namespace, *map(str, words)]

    def start(
        self, *words: str | Path, env: Mapping[str, str] | None = None, log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program here; it is ended with the network. What it says can be read, or goes to a file."""
        environment = {**clean_environment(), "PYTHONPATH": str(ROOT), **(env or {})}
        with contextlib.nullcontext(subprocess.PIPE) if log is None else log.open("wb") as output:
            child = subprocess.Popen(
                self.command(*words), env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=None if log is None else subprocess.STDOUT, bufsize=0,
            )  # fmt: skip
        self._started.append(child)
        return child

    def serve(self, program: str, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start a Python program that says a line once it listens, and wait for that line."""
        child = self.start(sys.executable, "-u", "-c", program, *words)
        assert child.stdout is not None
        assert child.stdout.readline(), f"it has ended: {child.wait(END_S)}"
        return child

    def cut(self) -> None:
        """Pull its cable."""
        _ip("-n", self._hub, "link", "set", "dev", self.name, "down")

    def join(self) -> None:
        """Plug it in again."""
        _ip("-n", self._hub, "link", "set", "dev", self.name, "up")

    def close(self) -> None:
        """End what was started here."""
        for child in self._started:
            child.kill()
            child.wait(END_S)
            if child.stdout is not None:
                child.stdout.close()


class Network:
    """A bridge in a namespace of its own, with the test and its hosts on it."""

    def __init__(self) -> None:
        _clear_leftovers()
        self._hosts: dict[str, Host] = {}
        self._is_open = True
        self._prefix = f"{OURS}-{os.getpid()}-{next(_NUMBERS)}"
        self._hub = f"{self._prefix}-hub"
        self._cable, self._net = "", ""
        _ip("netns", "add", self._hub)
        try:
            self._lay()
        except NoNetwork:
            self.close()
            raise

    def _lay(self) -> None:
        """The bridge, and the cable from it to where the test runs."""
        _ip("netns", "exec", self._hub, "true")
        _ip("-n", self._hub, "link", "add", "name", "bridge", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "dev", "bridge", "up")
        self._take_net()
        _ip("-n", self._hub, "link", "set", "dev", "here", "master", "bridge", "up")
        _ip("address", "add", f"{self.here}/24", "dev", self._cable)
        _ip("link", "set", "dev", self._cable, "up")

    def _take_net(self) -> None:
        """The first one that nobody has: of two test runs only one can lay a cable of one name."""
        refusal = NoNetwork("every net is taken")
        for number in range(MOST_NETS):
            cable, net = f"sweep{number}", f"{NETS}.{number}"
            if f"{net}.0" in _ip("route"):
                continue
            try:
                _ip("link", "add", "name", cable, "type", "veth", "peer", "name", "here", "netns", self._hub)
            except NoNetwork as error:
                refusal = error
                continue
            self._cable, self._net = cable, net
            return
        raise refusal

    @property
    def here(self) -> str:
        """The test's own address on the bridge."""
        return f"{self._net}.{HERE}"

    def host(self, name: str) -> Host:
        """A computer of this name, made when it is first asked for."""
        if name not in self._hosts:
            namespace, address = f"{self._prefix}-{name}", f"{self._net}.{HERE + 1 + len(self._hosts)}"
            _ip("netns", "add", namespace)
            self._hosts[name] = Host(name, namespace, self._hub, address)
            _ip("-n", namespace, "link", "set", "dev", "lo", "up")
            _ip(
                "link",
                "add",
                "name",
                name,
                "netns",
                self._hub,
                "type",
                "veth",
                "peer",
                "name",
                "net",
                "netns",
                namespace,
            )
            _ip("-n", self._hub, "link", "set", "dev", name, "master", "bridge", "up")
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "net")
            _ip("-n", namespace, "link", "set", "dev", "net", "up")
        return self._hosts[name]

    def close(self) -> None:
        """End what runs on the hosts, and take everything away; a cable goes with the namespace at its end."""
        if not self._is_open:
            return
        self._is_open = False
        for host in self._hosts.values():
            host.close()
        if self._cable:
            with contextlib.suppress(NoNetwork):
                _ip("link", "delete", "dev", self._cable)
        for name in [*self._hosts, "hub"]:
            with contextlib.suppress(NoNetwork):
                _ip("netns", "delete", f"{self._prefix}-{name}")


def left() -> list[str]:
    """The namespaces of all test runs that there are."""
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.startswith(f"{OURS}-")]


def _clear_leftovers() -> None:
    """Those of test runs that were killed, with all that still runs in them."""
    for name in left():
        owner = name.removeprefix(f"{OURS}-").partition("-")[0]
        if not psutil.pid_exists(int(owner)):
            with contextlib.suppress(NoNetwork):
                for pid in _ip("netns", "pids", name).split():
                    with contextlib.suppress(psutil.Error):
                        psutil.Process(int(pid)).kill()
                _ip("netns", "delete", name)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of its own for the test. Skips, or in CI fails, where none can be made."""
    if sys.platform != "linux":
        skip_outside_ci("network namespaces are Linux's")
    if shutil.which("ip") is None:
        skip_outside_ci("iproute2 is not installed")
    try:
        made = Network()
    except NoNetwork as reason:
        skip_outside_ci(f"no network namespace can be made here: {reason}")
    with contextlib.closing(made):
        yield made
