"""`completion SHELL`: what a shell must read to complete commands, options and names."""

from __future__ import annotations

import click

from ollama_sweep.cli.completing import SHELLS
from ollama_sweep.cli.terminal import say_lines


@click.command("completion", short_help="What bash, zsh or fish must read to complete words.")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script for SHELL that completes commands, options, files, the names of sweeps in the database, metrics,
    dimensions, keys behind --set, engines and plots.

    \b
    For good:
      bash  echo 'eval "$(ollama-sweep completion bash)"' >> ~/.bashrc
      zsh   echo 'eval "$(ollama-sweep completion zsh)"' >> ~/.zshrc
      fish  ollama-sweep completion fish > ~/.config/fish/completions/ollama-sweep.fish

    \b
    Example:
      ollama-sweep completion bash > ollama-sweep.bash
    """
    from ollama_sweep.cli import PROGRAM, cli, completing

    say_lines(completing.script(shell, cli, PROGRAM).lstrip("\n"))
