"""`doctor --lanes --cluster`: whether lanes on the hosts of a cluster disturb each other."""

from __future__ import annotations

from ollama_sweep.run.cluster.session import ClusterSession
from ollama_sweep.run.lanes.neighbours import NeighboursSession


class ClusterNeighboursSession(NeighboursSession, ClusterSession):
    """See both: what is measured is that of the first, where it is measured that of the second."""
