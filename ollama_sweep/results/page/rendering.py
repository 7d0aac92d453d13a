"""Writes what a page says as HTML: one file that asks for nothing, or a part of it. The one place that uses Jinja2.

Text of others cannot steer a page: a template escapes whatever it writes, with marks that are not seen written out, and
the page allows no script but its own, by its hash, and no address but those that hold their data.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ollama_sweep import __version__
from ollama_sweep.core.text import as_json, harmless, harmless_lines
from ollama_sweep.machine.secrets import masked
from ollama_sweep.results.page import maps, svg
from ollama_sweep.results.page.view import SweepView

TEMPLATES = Path(__file__).parent / "templates"
FORM = "ollama-sweep report 1"
"""What the data of a page begin with: their form and its number."""


def report_page(sweeps: Sequence[SweepView], *, analysis: Sequence[str] = ()) -> bytes:
    """The whole page: verdict, maps, tables, data. The same views give the same bytes."""
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    body = part("report_body.jinja", sweeps=sweeps, analysis=analysis)
    data = {"form": FORM, "version": __version__, "sweeps": [view.data for view in sweeps]}
    page = environment().get_template("report.jinja").render(
        title=", ".join(view.name for view in sweeps), policy=policy, style=_markup(_file("page.css")), body=body,
        script=_markup(script), data=data_block(data), version=__version__,
    )  # fmt: skip
    return page.encode()


def data_block(data: Mapping[str, object]) -> Markup:
    """Data as JSON that stays data inside of HTML, whatever texts are in it."""
    text = masked(as_json(data)).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return _markup(text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def part(
    template: str, folder: Path | None = None, *, hide: Callable[[str], str] = masked, **given: Any
) -> Markup:  # fmt: skip
    """A page or a part of one, by a template here or in a folder of others. `hide` takes out what is secret."""
    return _markup(hide(environment(folder).get_template(template).render(**given)))


@cache
def environment(folder: Path | None = None) -> Environment:
    """Templates with everything escaped that they are given; those of another folder beside these."""
    made = Environment(
        loader=FileSystemLoader([TEMPLATES, *([folder] if folder else [])]), autoescape=True, finalize=_shown,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters["lines"] = _lines
    made.globals["map_cells"] = svg.map_cells
    made.globals["swatches"] = {str(look): name for look, name in maps.swatches().items()}
    return made


def _shown(value: object) -> object:
    """What a template writes of a value: text of others on one line, without marks that are not seen."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return harmless(value)


def _lines(text: str) -> Markup:
    """Text of several lines, harmless."""
    return escape(harmless_lines(text))


def _markup(text: str) -> Markup:
    """Text that a template of ours made, or that is our own."""
    return Markup(text)  # noqa: S704 - it is HTML already, and everything of others in it is escaped


@cache
def _file(name: str) -> str:
    return (TEMPLATES / name).read_text("utf-8")
