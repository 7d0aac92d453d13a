"""`import FILE`: take over results of an older tool."""

from __future__ import annotations

from pathlib import Path

import click

from ollama_sweep.cli import paths, shared
from ollama_sweep.cli.terminal import say, warn

LIMIT_MB = 100


@click.command("import", short_help="Take over results of an older tool.")
@click.argument("file", type=paths.SOURCE)
@click.option("--name", default=None, help="Name of the sweep it becomes; default: the file's stem.")
@click.option("--allow-network-db", is_flag=True, help="Allow a database on a network drive.")
@shared.db_option
def command(file: Path, name: str | None, allow_network_db: bool, db: Path) -> None:
    """Read {"results": [{"num_ctx", "num_batch", "prompt_eval_rate", "timestamp", "error"}]}.

    The cells carry the flag `imported` and are never mixed with measured ones.

    \b
    Example:
      ollama-sweep import old_results.json --name before
    """
    from ollama_sweep.engines.shared.failures import meaning
    from ollama_sweep.machine.files import read_text
    from ollama_sweep.results.export import read_old_results
    from ollama_sweep.store.writer import Store

    old = read_old_results(read_text(file, LIMIT_MB), str(file))
    rows = [{**row, **meaning(str(row.get("error") or ""))} for row in old]
    with Store.open(db, allow_network=allow_network_db, say=warn) as store:
        added = store.import_results(name or file.stem, rows, str(file))
    say(f"{added} of {len(rows)} results are new in sweep {name or file.stem} (flag: imported)")
