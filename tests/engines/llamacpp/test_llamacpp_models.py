"""Which file a name of a model is for the embedded engine, and what that may not be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from blobs import SMALLEST_GGUF, install
from blobs import installed as installed  # a fixture

from ollama_sweep.core.errors import ConfigError, EngineMissing
from ollama_sweep.engines.llamacpp.model import locate


def test_an_installed_model_is_its_blob(installed: Path) -> None:
    install(installed, "registry.ollama.ai/library/smol/latest", {"model": SMALLEST_GGUF, "license": b"MIT"})
    source = locate("smol")
    assert source.digest == "sha256:" + hashlib.sha256(SMALLEST_GGUF).hexdigest()
    assert source.path.read_bytes() == SMALLEST_GGUF
    assert locate("smol:latest").path == locate("registry.ollama.ai/library/smol").path == source.path


def test_what_an_installed_model_adds_is_part_of_its_digest(installed: Path) -> None:
    layers = {"model": SMALLEST_GGUF, "system": b"Be brief.", "params": b'{"stop": ["x"]}'}
    install(installed, "registry.ollama.ai/someone/smol/8b", layers)
    install(installed, "registry.ollama.ai/someone/smol/plain", {"model": SMALLEST_GGUF})
    source = locate("someone/smol:8b")
    assert (source.system, source.options, source.template) == ("Be brief.", {"stop": ["x"]}, None)
    assert source.digest != locate("someone/smol:plain").digest


def test_the_folder_of_the_service_is_searched_too(installed: Path, tmp_path: Path) -> None:
    install(tmp_path / "service", "registry.ollama.ai/library/smol/latest", {"model": SMALLEST_GGUF})
    assert locate("smol").path.is_relative_to(tmp_path / "service")


@pytest.mark.parametrize("name", ["smol", "smol:8b", "../../etc/passwd", "a/b/c/d/e", "", ":", "hf.co/x/y:Q4_0"])
def test_a_model_that_is_not_installed(installed: Path, name: str) -> None:
    with pytest.raises(EngineMissing, match="is not installed here"):
        locate(name)


@pytest.mark.parametrize(
    ("layers", "message"),
    [({"system": b"x"}, "no weights"), ({"model": SMALLEST_GGUF, "adapter": b"x"}, "has an adapter")],
)
def test_a_model_that_cannot_be_used_here(installed: Path, layers: Mapping[str, bytes], message: str) -> None:
    install(installed, "registry.ollama.ai/library/smol/latest", layers)
    with pytest.raises(EngineMissing, match=message):
        locate("smol")


def test_an_installed_model_that_is_not_whole(installed: Path) -> None:
    install(installed, "registry.ollama.ai/library/smol/latest", {"model": SMALLEST_GGUF, "params": b"{"})
    with pytest.raises(EngineMissing, match="ollama pull smol"):
        locate("smol")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("hello")
    with pytest.raises(ConfigError, match="is not a GGUF file"):
        locate(str(tmp_path / "x.gguf"))
