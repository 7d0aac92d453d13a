"""Which lanes a sweep has: the GPUs of this computer that it names, or the servers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ollama_sweep import engines
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.lanes.lane import Lane, shared_out
from ollama_sweep.engines.base import EngineInfo
from ollama_sweep.machine import address, computer, ports, processor
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.run import claims

OLLAMA_PORT = address.OLLAMA_PORT


@dataclass(frozen=True)
class Chosen:
    """A lane, what goes into the environment of its process, and what it needs for itself (key -> words)."""

    lane: Lane
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)


def refuse_combinations(spec: SweepSpec, where: str) -> None:
    """What several lanes cannot do; `where` says that there are lanes. Raises ConfigError."""
    if spec.arms or spec.arm is not None:
        raise ConfigError("a pair is measured in turns on one lane; leave out `pair` or this key", where)
    if spec.conditions.wait_for_idle_gpu:
        raise ConfigError("the lanes themselves keep GPUs busy, so none is ever idle; leave out one of the two",
                          "wait_for_idle_gpu")  # fmt: skip


def refuse_engine(engine: str, where: str) -> None:
    """An engine whose numbers mean nothing on another lane. Raises ConfigError."""
    if not engines.facts(engine).has_lanes:
        facts = {name: engines.facts(name) for name in sorted(engines.known())}
        can = ", ".join(name for name, fact in facts.items() if fact.has_lanes and not fact.is_scripted)
        raise ConfigError(f"the engine {engine} measures in one place only; lanes are for {can}", where)


def lanes_of(spec: SweepSpec, *, allow_remote: bool) -> list[Chosen]:
    """The lanes in the order of the file. Raises ConfigError, which names the lane."""
    return _hosts(spec, allow_remote) if spec.hosts else _gpus(spec)


def _hosts(spec: SweepSpec, allow_remote: bool) -> list[Chosen]:
    found: dict[tuple[str, int], str] = {}
    chosen = []
    for one in spec.hosts:
        where = f"hosts.{one.name}"
        there = address.server(one.host, allow_remote=allow_remote, port=OLLAMA_PORT, where=where)
        place = "" if there.is_local else there.name, there.port
        if other := found.get(place):
            raise ConfigError(f"{there.root} is host {other} already; a server is one lane", where)
        found[place] = one.name
        chosen.append(_with_needs(spec, Chosen(Lane(one.name, host=there.root))))
    return chosen


def _with_needs(spec: SweepSpec, one: Chosen) -> Chosen:
    info = EngineInfo(spec.engine, "", one.lane.host)
    scripted = engines.facts(spec.engine).is_scripted
    needs = {f"server {one.lane.host}": f"The server at {one.lane.host}"}
    if not scripted:
        needs |= claims.needs(spec, info, computer.gpus)
    return Chosen(one.lane, one.environment, needs)


def refuse_shared(chosen: Sequence[Chosen]) -> None:
    """Two lanes on one GPU. Raises ConfigError."""
    taken: dict[str, str] = {}
    for one in chosen:
        for key, words in one.needs.items():
            other = taken.setdefault(key, one.lane.name)
            if other != one.lane.name and not key.endswith(" processor"):
                raise ConfigError(f"{words} would be used by {other} and {one.lane.name}: two at once spoil each "
                                  "other's numbers; leave out one of them", f"hosts.{one.lane.name}")  # fmt: skip


def computer_of(lane: Lane) -> str:
    """Which computer a lane is on: "" for this one, else the name under which it is reached; behind a tunnel nobody
    knows, so that is one of its own.
    """
    if not lane.host or not ports.is_elsewhere(lane.host):
        return ""
    name = urlsplit(lane.host).hostname or ""
    return lane.host if address.is_loopback(name) else name


def _gpus(spec: SweepSpec) -> list[Chosen]:
    all_gpus = computer.gpus()
    seen = computer.visible(all_gpus, os.environ)
    usable = [number for number, gpu in enumerate(all_gpus) if any(gpu is one for one in seen)]
    if not usable:
        why = computer.gpu_trouble() or "there is no GPU here"
        raise ConfigError(f"{why}; servers elsewhere are named by hosts", "gpus")
    wanted = list(spec.gpus or usable)
    there = ", ".join(map(str, usable))
    for number in wanted:
        if number not in usable:
            hidden = "is hidden by CUDA_VISIBLE_DEVICES" if number < len(all_gpus) else "is not there"
            raise ConfigError(f"GPU {number} {hidden}; there is {there}", "gpus")
    shares = shared_out(processor.cores_here(), len(wanted))
    if not shares:
        cores = len(processor.cores_here())
        raise ConfigError(f"{len(wanted)} lanes need a core each, and this program may use {cores}", "gpus")
    return [_gpu(number, share, all_gpus[number].name) for number, share in zip(wanted, shares, strict=True)]


def _gpu(number: int, processors: tuple[int, ...], name: str) -> Chosen:
    import platform

    text = str(number)
    environment = {
        "CUDA_VISIBLE_DEVICES": text,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # nvidia-smi counts so, CUDA by itself does not
        "HIP_VISIBLE_DEVICES": text,
        "OLLAMA_NOPRUNE": "1",  # a server that starts would take away what the one beside it is importing
    }
    needs = {f"{platform.node()} gpu {number}": f"GPU {number} ({name})"}
    return Chosen(Lane(f"gpu{number}", gpu=number, processors=processors), environment, needs)
