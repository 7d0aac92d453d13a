"""`scheduler`: brings the hosts of a cluster and a sweep together."""

from __future__ import annotations

from pathlib import Path

import click

from ollama_sweep.cli import paths
from ollama_sweep.cli.terminal import say


@click.command("scheduler", short_help="Bring the hosts of a cluster and a sweep together.")
@click.option("--listen", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="HOST or HOST:PORT (8786).")
@click.option("--tls", type=paths.LATER, default=None, metavar="FOLDER", help="This side's certificates (hosts init).")
@click.option("--insecure", is_flag=True, help="Without certificates: whoever reaches the port can run programs here.")
@click.option("--dashboard", type=click.IntRange(1, 65535), default=None, metavar="PORT",
              help="Dask's own page, on loopback; it has no login.")  # fmt: skip
def command(listen: str, tls: Path | None, insecure: bool, dashboard: int | None) -> None:
    """Run the scheduler of a cluster until Ctrl-C. Workers and `run --cluster` meet there; it measures nothing, keeps
    nothing, and may be started again at any time: what is measured meanwhile goes on.

    \b
    Example:
      ollama-sweep scheduler --listen 10.0.0.1 --tls hosts-tls/coordinator
      ollama-sweep worker 10.0.0.1 --tls hosts-tls/worker
    """
    from ollama_sweep.run.cluster import scheduling, ways

    way = ways.way_to(listen, tls, insecure=insecure, where="--listen")
    scheduling.serve(way, lambda address: say(f"Listening at {address}"), dashboard_port=dashboard)
