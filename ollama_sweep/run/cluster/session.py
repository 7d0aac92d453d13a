"""One measuring of a sweep on the hosts of a cluster."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.lanes.lane import Lane
from ollama_sweep.plan.survey import Survey
from ollama_sweep.run.cluster import batch, lanes, local
from ollama_sweep.run.cluster.ways import LOCAL, SLURM, Way, dask, way_to
from ollama_sweep.run.lanes.choosing import Chosen
from ollama_sweep.run.lanes.room import room_of
from ollama_sweep.run.lanes.session import LanesSession
from ollama_sweep.run.lanes.side import Side
from ollama_sweep.store.writer import Store

_STARTED = re.compile(r"(local|slurm):([0-9]{1,3})")
MOST_STARTED = 256


class ClusterSession(LanesSession):
    """See `LanesSession`: each lane is a host that has joined a scheduler."""

    _ways: Mapping[str, Way] = MappingProxyType({})

    @property
    def _where(self) -> str:
        return "--cluster"

    def check(self) -> None:
        """Raises ConfigError, also where Dask is missing or a certificate does not hold."""
        super().check()
        if self.spec.has_lanes:
            where = "gpus" if self.spec.gpus is not None else "hosts"
            raise ConfigError(f"--cluster says where this sweep is measured; leave out it, or {where}", "--cluster")
        dask()
        kind, _ = self._wanted()
        given = "--tls" if self.options.tls is not None else "--insecure" if self.options.insecure else ""
        if kind and given:
            raise ConfigError(f"{kind}:N makes certificates of its own; leave it out", given)
        if not kind:
            self._way()
        elif kind == SLURM:
            batch.library()

    def _wanted(self) -> tuple[str, int]:
        """`local` or `slurm`, and how many; "" for an address. Raises ConfigError."""
        text = self.options.cluster
        if text.partition(":")[0] not in (LOCAL, SLURM):
            return "", 1
        found = _STARTED.fullmatch(text)
        if found is None or not 1 <= int(found[2]) <= MOST_STARTED:
            raise ConfigError(f"{text}: write {text.partition(':')[0]}:N with 1 to {MOST_STARTED} workers", "--cluster")
        return found[1], int(found[2])

    def _computer_of(self, lane: Lane) -> str:
        """Two workers may well be on one computer, but only of those that are started here is it known."""
        return "" if self._wanted()[0] == LOCAL else lane.name

    def _doctor(self) -> str:
        options = self.options
        how = f" --tls {options.tls}" if options.tls is not None else " --insecure" if options.insecure else ""
        return f"{super()._doctor()} --cluster {options.cluster}{how}"

    def _way(self) -> Way:
        options = self.options
        return way_to(options.cluster, options.tls, insecure=options.insecure, where="--cluster")

    @contextlib.contextmanager
    def _lanes(self, name: str) -> Iterator[Sequence[Chosen]]:
        """Raises EngineUnavailable where no host has joined."""
        kind, count = self._wanted()
        join_s = self.options.wait_engine_s if kind == SLURM else lanes.JOIN_S
        start = {LOCAL: local.started, SLURM: batch.started}
        with start[kind](count) if kind else contextlib.nullcontext(self._way()) as way:
            found = lanes.lanes_of(way, self._say, hosts=count, join_s=join_s)
            self._ways = {lane.name: to for lane, to in found}
            yield [Chosen(lane) for lane, _ in found]

    def _side(self, store: Store, found: Survey, one: Chosen) -> Side:
        side = super()._side(store, found, one)
        room = room_of(self.db, one.lane.name)
        side.connection = lanes.BridgeConnection(room, one.environment, way=self._ways[one.lane.name])
        return side
