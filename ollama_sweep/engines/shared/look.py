"""What `doctor` sees of an engine before it is made: its program, its server, and what is loaded there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.finding import Finding
from ollama_sweep.core.options import Options
from ollama_sweep.engines.shared.reached import Told, Unreached
from ollama_sweep.machine.address import Address

if TYPE_CHECKING:
    from ollama_sweep.engines.base import EngineSettings


@dataclass(frozen=True)
class Asked:
    """What `doctor` was asked about: an engine by name, models, settings of a server that the sweep starts.

    `is_open`: the sweep names no engine (`auto`).
    """

    engine: str
    is_open: bool = False
    models: tuple[str, ...] = ()
    server: Options = ()
    sweep_runs: bool = False


class Look:
    """A look starts nothing, changes nothing and leaves nothing. This one sees nothing: it is every engine's own.

    `environment` are the variables of the engine's server and `origin` says in words whose they are; None where it has
    none. `is_elsewhere`: the server is not on this computer, or that cannot be told. `is_shared`: somebody has
    something loaded, so nothing may be loaded beside it. `measures` says whether this engine would measure; where not,
    little is to be said.
    """

    environment: Mapping[str, str] | None = None
    origin = ""
    is_shared = False
    is_elsewhere = False

    def __init__(self, settings: EngineSettings, asked: Asked) -> None:
        self._settings, self._asked = settings, asked

    def findings(self, *, measures: bool) -> Iterator[Finding]:
        """How its program and its server stand. They may set `is_shared`."""
        yield from ()

    @property
    def is_there(self) -> bool:
        """`auto` may take this engine."""
        return True

    @property
    def may_open(self) -> bool:
        """The engine may be made now, and asked about its models."""
        return True

    def disks(self, *, measures: bool) -> Iterator[tuple[str, Path, int]]:
        """What it keeps, where, and how many bytes of models it would import there first."""
        yield from ()

    @classmethod
    def living_host(cls, where: str, settings: EngineSettings) -> str | None:  # noqa: ARG003 - for those with a server
        """The server at which a sweep was measured, where it still answers and can be used."""
        return None

    @classmethod
    def reach(cls, address: Address, timeout_s: float) -> Told:  # noqa: ARG003 - for those with a server
        """What a server at an address says of itself, its models and its clock; nothing changes there.

        Raises Unreached: where it cannot be measured from here, and for an engine whose numbers mean nothing elsewhere.
        """
        raise Unreached("is not asked: this engine measures on its own computer only", "Use Ollama on the other hosts")
