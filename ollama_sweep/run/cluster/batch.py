"""`--cluster slurm:N`: N jobs of Slurm, each a worker, by the settings that dask-jobqueue has for this place."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import ConfigError, EngineUnavailable
from ollama_sweep.core.text import one_line
from ollama_sweep.run.cluster import hosted, local
from ollama_sweep.run.cluster.ways import Way, dask

INSTALL = "pip install dask-jobqueue"
SETTINGS = "~/.config/dask/jobqueue.yaml"


def library() -> Any:
    """The class of a job. Raises ConfigError where the package is missing or this place is not described."""
    dask()
    try:
        from dask_jobqueue.slurm import SLURMJob
    except ImportError:
        raise ConfigError(f"slurm needs the package dask-jobqueue. Run: {INSTALL}", "--cluster") from None
    import dask.config as settings

    for what in ("cores", "memory"):
        if settings.get(f"jobqueue.slurm.{what}", None) is None:
            raise ConfigError(
                f"jobqueue.slurm.{what} is not said; what a job gets here stands in {SETTINGS}", "--cluster"
            )
    return SLURMJob


@contextlib.contextmanager
def started(count: int) -> Iterator[Way]:
    """The way to a scheduler on this computer, with so many jobs in the queue; they are cancelled with the block.

    The certificates lie in the home folder, which the hosts of a cluster share. Raises EngineUnavailable.
    """
    kind, parent = library(), hosted.folder().parent
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with local.scheduler(parent, _own_address()) as (way, there):
        jobs = [_job(kind, way, there, f"slurm{number}") for number in range(count)]
        try:
            asyncio.run(_submit(jobs))
            yield way
        finally:
            asyncio.run(_cancel(jobs))


def _own_address() -> str:
    from distributed.utils import get_ip

    return str(get_ip())


def _job(kind: Any, way: Way, tls: Path, name: str) -> Any:
    """A job of dask-jobqueue, whose command is a worker of ours."""
    job = kind(scheduler=way.url, name=name)
    words = [sys.executable, "-P", "-m", "ollama_sweep", "worker", way.url, "--name", name, "--tls", str(tls)]
    job._command_template = shlex.join(words)
    return job


async def _submit(jobs: Sequence[Any]) -> None:
    for job in jobs:
        try:
            await job.start()
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineUnavailable(f"Slurm does not take the job of {job.name}: {one_line(str(error))}") from error


async def _cancel(jobs: Sequence[Any]) -> None:
    for job in jobs:
        with contextlib.suppress(OSError, RuntimeError):
            await job.close()
