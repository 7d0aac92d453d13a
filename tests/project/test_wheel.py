"""The wheel: everything that the program reads is in it, and it works without a checkout."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import container_file
import pytest
from ollama_fixture import ROOT, clean_environment
from sweep_runner import write_fake_script

PACKAGE = ROOT / "ollama_sweep"
DATA = {ROOT / "prompts": "ollama_sweep/shipped_prompts", ROOT / "configs": "ollama_sweep/shipped_configs"}
"""Folders beside the package that are installed inside it."""
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
CALLS = """
import json, sys
from ollama_sweep.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["ollama-sweep", *words]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
import ollama_sweep
print(ollama_sweep.__file__)
"""
"""Several commands of the program in one process, and where it was imported from."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline with the build backend that lies in the environment, from what the container file copies."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in container_file.copied():
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source)
        else:
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(built)], cwd=source, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (found,) = built.glob("*.whl")
    return found


def called(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a command says that ends well."""
    kept = {
        name: value for name, value in clean_environment().items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        command, cwd=folder, env={**kept, **environment}, stdin=subprocess.DEVNULL, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sets(keys: Iterable[str]) -> list[str]:
    """Keys of a sweep file as words of the command line."""
    return [word for key in keys for word in ("--set", key)]


def test_what_is_tracked_of_the_package_is_in_it_and_nothing_else(wheel: Path) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    for folder, place in DATA.items():
        files |= {f"{place}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()}
    wanted = {name for name in files if "__pycache__" not in name and "/shipped_configs/" not in name}
    wanted.add("ollama_sweep/shipped_configs/sweep.schema.json")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        about = next(name for name in held if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
        points = archive.read(f"{about}/entry_points.txt").decode()
    assert {name for name in held if not name.startswith(about)} == wanted
    assert "ollama-sweep = ollama_sweep.cli:main" in points


def test_it_runs_from_an_unpacked_copy_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Help, a first sweep file, the plan, a sweep with a real picture and a shipped prompt set, the page."""
    unpacked, here = tmp_path / "unpacked", tmp_path / "here"
    here.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    script = write_fake_script(tmp_path / "fake.json", {"context_length": 300, "noise": 0})
    keys = ("repeats=1", "warmup=0", "second_look=off", "control=off", "num_batch=[32]", "task=[prompt_eval, chat]")
    said = called(
        [sys.executable, "-P", "-c", CALLS, json.dumps([
            ["--help"], ["schema"], ["init", "m", "mine.yaml", "--engine", "fake"], ["plan", "mine.yaml"],
            ["run", "mine.yaml", *sets(keys)], ["report", "--html", "page.html"],
        ])],
        here, {"PYTHONPATH": str(unpacked), "OLLAMA_SWEEP_FAKE": str(script), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert Path(said.splitlines()[-1]).is_relative_to(unpacked)
    assert list(here.glob("heatmaps/mine/*.png"))
    assert (here / "page.html").read_text("utf-8").rstrip().endswith("</html>")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_is_installed_into_an_empty_environment_and_measures(
    wheel: Path, tmp_path: Path, small_model: Path
) -> None:  # fmt: skip
    """The quickstart's shape with the scripted engine, and with the embedded one on a real model; then pipx and uvx."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    bin_folder = environment / "bin"
    called([str(bin_folder / "pip"), "install", "--quiet", f"{wheel}[llamacpp]", "pipx", "uv"], tmp_path, {})
    program = str(bin_folder / "ollama-sweep")
    for engine, model in (("fake", "m"), ("llamacpp", str(small_model))):
        here = tmp_path / engine
        here.mkdir()
        shutil.copy(ROOT / "configs" / "quickstart.yaml", here)
        keys = ["num_ctx=[1024]", "num_batch=[1, 64]", "second_look=off", "prompt.text=Tell me of rivers."]
        keys += ["num_thread=1"]  # two on a busy machine would wait for each other
        words = ["quickstart.yaml", "--engine", engine, "--model", model, *sets(keys)]
        script = write_fake_script(here / "fake.json", {"noise": 0})
        told = {"OLLAMA_SWEEP_FAKE": str(script)} if engine == "fake" else {}
        for name in ("plan", "run"):
            called([program, name, *words], here, told)
        called([program, "best", "quickstart.yaml"], here, told)
        rows = list(csv.DictReader(called([program, "export"], here, {}).splitlines()))
        crashed = {row["num_batch"] for row in rows if row["status"] != "ok"}
        assert len(rows) == 2
        assert crashed == ({"1"} if engine == "llamacpp" else set())
        assert list(here.glob("heatmaps/quickstart/*.png"))
    own = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    for once in (["pipx", "run", "--spec", str(wheel)], ["uvx", "--from", str(wheel)]):
        said = called([str(bin_folder / once[0]), *once[1:], "ollama-sweep", "--version"], tmp_path, own)
        assert said.startswith("ollama-sweep")
