"""What Datasette shows beside a database: titles, words and units of tables and columns, and queries. Pure.

Words and units come from `columns`, tables and queries from `described`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ollama_sweep.core.text import as_json
from ollama_sweep.results.formats.columns import described, known
from ollama_sweep.results.formats.described import INNER, QUERIES, TABLES

if TYPE_CHECKING:
    from ollama_sweep.store.reader import Reader


def metadata(reader: Reader) -> str:
    """The JSON for `datasette DATABASE --metadata FILE`; it fits this database by its name and its columns."""
    content = {"title": "ollama-sweep", "databases": {reader.path.stem: _database(reader)}}
    return as_json(content, indent=2, strict=True) + "\n"


def _database(reader: Reader) -> dict[str, Any]:
    found = reader.table_columns()
    return {
        "description": "Sweeps of num_ctx and num_batch. Begin with the view results, or with one of the queries.",
        "tables": {
            "results": {
                "title": "Results",
                "description": TABLES["results"],
                "columns": {column.name: column.text for column in described(reader.result_types())},
                "facets": ["sweep", "status"],
            },
            **{name: _table(name, columns) for name, columns in found.items()},
        },
        "queries": {one.name: {"title": one.title, "description": one.description, "sql": one.sql} for one in QUERIES},
    }


def _table(name: str, columns: Mapping[str, str]) -> dict[str, Any]:
    if name in INNER or name not in TABLES:
        return {"hidden": True}
    words = {column.name: column.text for column in described(known(columns))}
    return {"description": TABLES[name], **({"columns": words} if words else {})}
