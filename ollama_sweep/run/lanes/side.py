"""A lane as the coordinator sees it: its process, what it does, and whether it still takes part."""

from __future__ import annotations

from dataclasses import dataclass

from ollama_sweep.core.lanes.lane import Lane, Standing
from ollama_sweep.core.lanes.order import Gone, Order
from ollama_sweep.run.lanes.connection import Connection, Outlived
from ollama_sweep.run.lanes.post import Post
from ollama_sweep.run.loop import Begun
from ollama_sweep.run.memory.watch import MemoryWatch
from ollama_sweep.store.lanes.keeping import State


@dataclass
class Doing:
    """What a lane measures now, and since when (seconds of the clock)."""

    begun: Begun
    order: Order
    since_s: float


@dataclass
class Side:
    """A lane in this session: its process, what it does, and whether it is still one of ours."""

    lane: Lane
    connection: Connection
    post: Post
    memory: MemoryWatch | None = None
    standing: Standing | None = None
    doing: Doing | None = None
    outlived: Outlived | None = None
    is_ready: bool = False
    is_idle: bool = False
    """It has said so since its last order: what came after that one, such as the end of a failed load, is over."""
    is_away: bool = False
    is_left_out: bool = False
    is_spare: bool = False
    """There are fewer cells than lanes: it begins where another one is left out."""
    is_released: bool = False
    why_gone: Gone | None = None
    deaths: int = 0
    is_cut: bool = False
    is_known_as: tuple[State, str] | None = None
    """How it stands by the database."""

    @property
    def is_free(self) -> bool:
        """It takes an order now."""
        return self.is_ready and self.is_idle and self.doing is None and not self.is_left_out

    @property
    def is_hoped_for(self) -> bool:
        """It measures, or may do so yet."""
        return not self.is_left_out and not self.is_spare
