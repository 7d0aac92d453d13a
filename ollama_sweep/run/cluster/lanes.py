"""The lanes of a cluster: a worker that has joined is a lane, and a bridge here stands for its process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from ollama_sweep.core.errors import EngineMissing, EngineUnavailable
from ollama_sweep.core.lanes.lane import Lane
from ollama_sweep.machine.clocks import REAL
from ollama_sweep.plan.hosts.handshake import differences
from ollama_sweep.run.cluster import bridge, sides
from ollama_sweep.run.cluster.link import Lost, connected, hosts_of
from ollama_sweep.run.cluster.ways import Way
from ollama_sweep.run.lanes.connection import LocalConnection
from ollama_sweep.run.lanes.post import Post

JOIN_S, LOOK_S = 30.0, 0.5
"""So long hosts are waited for that are just starting."""
HERE = "this computer"


@dataclass
class BridgeConnection(LocalConnection):
    """See `Connection`: the process on the host, by a bridge here that says what it says."""

    way: Way = Way("")  # noqa: RUF009 - frozen
    module: ClassVar[str] = bridge.__name__

    def begin(self, post: Post) -> None:
        self.room.make()
        self.way.write(self.room.folder / bridge.WAY)
        super().begin(post)


def lanes_of(way: Way, say: Callable[[str], None], *, hosts: int = 1, join_s: float = JOIN_S) -> list[tuple[Lane, Way]]:
    """A lane for each host that fits, by name; so many are waited for, and who does not fit is said in words.

    Raises ConfigError, EngineUnavailable where no host is there, EngineMissing where none fits.
    """
    client = connected(way)
    try:
        until = REAL.monotonic_s() + join_s
        while len(found := hosts_of(client)) < hosts and REAL.monotonic_s() < until:
            REAL.sleep(LOOK_S)
    except (OSError, RuntimeError) as error:
        raise Lost(f"the scheduler at {way.url} has gone") from error
    finally:
        client.close(timeout=1)
    if not found:
        raise EngineUnavailable(f"no host has joined {way.url}. Start one: ollama-sweep worker {way.url}")
    own, fitting, refused = sides.own(HERE), [], []
    for name, theirs in sorted(found.items()):
        wrong = [one.words for one in differences(own, theirs)]
        if wrong:
            refused.append("; ".join(wrong))
        else:
            fitting.append((Lane(name), replace(way, host=name)))
    if not fitting:
        raise EngineMissing(refused[0])
    for words in refused:
        say(f"Warning: left out: {words}")
    return fitting
