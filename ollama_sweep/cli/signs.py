"""Signs beyond ASCII, and what stands for them where a terminal's encoding has no such sign."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

PLAIN = str.maketrans({"✓": "+", "✗": "x", "…": "...", "–": "-", "×": "x", "★": "*"})
_HANDLER = "ollama_sweep.plain"


def never_fail(stream: TextIO) -> None:
    """Let a stream write a plain sign where its encoding lacks one, instead of raising UnicodeEncodeError."""
    codecs.register_error(_HANDLER, _plain)
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "replace").decode("ascii"), error.end
