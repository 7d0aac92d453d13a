"""`schema`: the keys of a sweep file as a JSON Schema."""

from __future__ import annotations

import click

from ollama_sweep.cli.terminal import say_lines


@click.command("schema", short_help="The keys of a sweep file as a JSON Schema, for editors.")
def command() -> None:
    """Print the keys of a sweep file, their types, limits and defaults as a JSON Schema (draft 2020-12).

    Editors with the YAML language server complete and check a sweep file that begins with the line

    \b
      # yaml-language-server: $schema=sweep.schema.json

    where the schema lies beside it. No key is required in it: keys may come from the command line.

    \b
    Example:
      ollama-sweep schema > sweep.schema.json
    """
    from ollama_sweep.plan import schema

    say_lines(schema.text())
