"""`worker`: this computer as a host of a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from ollama_sweep.cli import paths
from ollama_sweep.cli.terminal import say


@click.command("worker", short_help="Let this computer measure for a sweep elsewhere.")
@click.argument("address")
@click.option("--name", default=None, help="How this host is called; default: its name in the network.")
@click.option("--tls", type=paths.LATER, default=None, metavar="FOLDER", help="This side's certificates (hosts init).")
@click.option("--insecure", is_flag=True, help="Without certificates: whoever reaches the port can run programs here.")
def command(address: str, name: str | None, tls: Path | None, insecure: bool) -> None:
    """Join the scheduler at ADDRESS as a host that measures one cell at a time, until Ctrl-C. What it measures is in a
    process of its own, which goes on when the network or this program is gone; the result waits in
    ~/.local/state/ollama-sweep until it is fetched.

    \b
    Example:
      ollama-sweep worker 10.0.0.1 --tls hosts-tls/worker
      ollama-sweep worker tls://gpu-head:8786 --name gpu-b --tls hosts-tls/worker
    """
    import platform
    from dataclasses import replace

    from ollama_sweep.run.cluster import ways, working

    way = ways.way_to(address, tls, insecure=insecure, where="ADDRESS")
    working.serve(replace(way, host=ways.host_name(platform.node() if name is None else name)), say)
