"""A lane: something that measures one cell at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

ADDRESS = "server"
"""The part of a fingerprint that stands for a computer that cannot be seen: the address of its server."""
OF_THE_LANE = frozenset({ADDRESS, "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES"})
"""Parts of a fingerprint that say which lane it is and not what kind of one."""


@dataclass(frozen=True)
class Lane:
    """A GPU of a computer with a server of its own, or a server that is there already.

    `host`: the address of that server, "" for one of our own. `gpu`: the GPU's number, as its driver counts them.
    `processors`: the numbers of the processors that the lane may use, empty for all of them.
    """

    name: str
    host: str = ""
    gpu: int | None = None
    processors: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """`lane gpu0` or `host a`."""
        return f"host {self.name}" if self.host else f"lane {self.name}"


@dataclass(frozen=True)
class Standing:
    """What a lane says of itself once its engine answers: name, version and address of the engine, the models' digests
    by name, and the fingerprint of its surroundings."""

    engine: str
    version: str
    where: str
    digests: Mapping[str, str] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    has_gpu: bool = False

    @property
    def kind(self) -> dict[str, str]:
        """The fingerprint without what only says which lane it is: equal for lanes of one class."""
        return {name: value for name, value in self.fingerprint.items() if name not in OF_THE_LANE}


def differences(of: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """`gpus RTX 3090, not RTX 4090`: what makes two lanes of different classes."""
    names = sorted({*of, *other})
    return [f"{name} {of.get(name, 'unknown')}, not {other.get(name, 'unknown')}"
            for name in names if of.get(name) != other.get(name)]  # fmt: skip


def mixed(kinds: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The surroundings of lanes that are not alike, as one: of each part every value that a lane has."""
    found: dict[str, set[str]] = {}
    for kind in kinds:
        for name, value in kind.items():
            found.setdefault(name, set()).add(value)
    return {name: " | ".join(sorted(values)) for name, values in sorted(found.items())}


def shared_out(processors: Sequence[Sequence[int]], lanes: int) -> list[tuple[int, ...]]:
    """Cores shared out evenly, each with all its threads, in their order; what does not go round is left unused.

    `processors` are the cores, each with the numbers of its threads. Empty where there are fewer cores than lanes.
    """
    each = len(processors) // max(1, lanes)
    if not each:
        return []
    shares = (processors[number * each : (number + 1) * each] for number in range(lanes))
    return [tuple(sorted(number for core in share for number in core)) for share in shares]
