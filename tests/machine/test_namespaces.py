"""Computers of the tests themselves: they reach each other, can be cut off and come back, and leave nothing."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from namespaces import OURS, Network, left, network
from ollama_fixture import until

PORT = 4000
ECHO = f"""
import socket
with socket.create_server(("0.0.0.0", {PORT})) as listening:
    print("listening")
    while True:
        client, _ = listening.accept()
        with client:
            while heard := client.recv(100):
                client.sendall(heard)
"""
ASK = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {PORT}), timeout=60) as asked:
    asked.sendall(b"hello")
    print(asked.recv(100).decode())
"""


def answer(address: str, timeout_s: float = 60.0) -> bytes:
    with socket.create_connection((address, PORT), timeout=timeout_s) as asked:
        asked.sendall(b"hello")
        return asked.recv(100)


def own_namespaces() -> list[str]:
    return [name for name in left() if name.startswith(f"{OURS}-{os.getpid()}-")]


def test_hosts_reach_each_other_and_the_test_reaches_them(network: Network) -> None:
    a, b = network.host("a"), network.host("b")
    a.serve(ECHO)
    assert answer(a.address) == b"hello"
    asked = b.start(sys.executable, "-c", ASK, a.address)
    assert asked.communicate(timeout=60)[0] == b"hello\n"
    assert network.host("a") is a


def test_a_host_that_is_cut_off_is_silent_and_a_connection_outlives_a_short_cut(network: Network) -> None:
    a = network.host("a")
    a.serve(ECHO)
    with socket.create_connection((a.address, PORT), timeout=60) as open_before:
        a.cut()
        with pytest.raises(OSError, match=r"timed out|No route to host"):
            answer(a.address, timeout_s=0.3)
        open_before.sendall(b"still")
        open_before.settimeout(0.3)
        with pytest.raises(TimeoutError):
            open_before.recv(100)
        a.join()
        open_before.settimeout(60)
        assert open_before.recv(100) == b"still"
    assert answer(a.address) == b"hello"


def test_others_still_reach_each_other(network: Network) -> None:
    a, b = network.host("a"), network.host("b")
    a.serve(ECHO)
    b.cut()
    assert answer(a.address) == b"hello"


def test_two_networks_at_once_are_two(network: Network) -> None:
    other = Network()
    try:
        assert other.here != network.here
        other.host("a").serve(ECHO)
        network.host("a").serve(ECHO)
        assert answer(other.host("a").address) == answer(network.host("a").address) == b"hello"
    finally:
        other.close()


def test_nothing_stays(network: Network) -> None:
    made = network.host("a")
    server = made.serve(ECHO)
    assert len(own_namespaces()) == 2
    network.close()
    assert own_namespaces() == []
    assert server.poll() is not None
    assert network.here not in subprocess.run(["ip", "address"], check=True, capture_output=True, text=True).stdout


def test_what_a_killed_test_run_left_is_cleared(network: Network) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    name = f"{OURS}-{gone.pid}-0-hub"
    subprocess.run(["ip", "netns", "add", name], check=True)
    inside = subprocess.Popen(["ip", "netns", "exec", name, "sleep", "600"])
    try:
        until("it runs there", lambda: str(inside.pid) in _pids(name))
        Network().close()
        assert name not in left()
        assert inside.wait(60) != 0
    finally:
        inside.kill()
        inside.wait()


def _pids(name: str) -> list[str]:
    return subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True).stdout.split()
