"""Models as Ollama keeps them: a manifest and its blobs."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from ollama_sweep.engines.llamacpp import model

SMALLEST_GGUF = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)


# -- an installed model ------------------------------------------------------------------------------------------


def install(folder: Path, name: str, layers: Mapping[str, bytes]) -> None:
    """A model as Ollama keeps it: a manifest and blobs."""
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    listed = []
    for kind, content in layers.items():
        digest = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / f"sha256-{digest}").write_bytes(content)
        listed.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"})
    manifest = folder / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": listed}))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(model, "_SYSTEM_FOLDER", tmp_path / "service")
    return tmp_path / "models"
