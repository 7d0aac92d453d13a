"""Text of others, made fit for one line."""

from __future__ import annotations

import json


def one_line(text: str) -> str:
    """A text of the person's on one line and not too long."""
    short = text if len(text) <= 60 else text[:60] + "…"
    return short if short.isprintable() else json.dumps(short)[1:-1]
