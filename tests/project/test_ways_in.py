"""What people come in by beside the program itself: workflows, the container file, issue forms, the citation."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import container_file
import pytest
import yaml
from ollama_fixture import ROOT

from ollama_sweep import __version__
from ollama_sweep.cli import COMMANDS, PROGRAM, cli

WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FIELDS = {"markdown": {"value"}, "input": {"label"}, "textarea": {"label"}, "dropdown": {"label", "options"}}
"""Fields of an issue form, and what each must say."""


def workflow(name: str) -> dict[Any, Any]:
    """A workflow; YAML reads its key `on` as true."""
    found = yaml.safe_load(WORKFLOWS[name].read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def test_a_release_is_made_of_what_was_checked_and_without_a_secret() -> None:
    assert not [
        name
        for name, path in WORKFLOWS.items()
        if re.search(r"secrets\b|password", path.read_text("utf-8").split("\n\n", 1)[1])
    ]
    jobs = workflow("release")["jobs"]
    assert jobs["build"]["needs"] == "checks"
    assert jobs["publish"]["needs"] == "build"
    called = jobs["checks"]["uses"]
    assert (ROOT / called).is_file()
    assert "workflow_call" in workflow(Path(called).stem)[True]
    may = {name: job.get("permissions") for name, job in jobs.items()}
    assert may == {"checks": None, "build": None, "publish": {"id-token": "write"}}
    assert workflow("release")["permissions"] == {"contents": "read"}


def test_workflows_run_what_is_there() -> None:
    for name in WORKFLOWS:
        runs = [
            step["run"] for job in workflow(name)["jobs"].values() for step in job.get("steps", []) if "run" in step
        ]
        for line in runs:
            if target := re.fullmatch(r"make ([\w-]+)", line):
                assert re.search(rf"^{target[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE), line
            if line.startswith("."):
                assert (ROOT / line).is_file(), line


def test_the_pythons_that_are_named_are_tested() -> None:
    versions = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    checks = workflow("checks")["jobs"]
    tested = set(checks["fast"]["strategy"]["matrix"]["python"])
    tested |= {
        step["with"]["python-version"] for step in checks["everything"]["steps"] if "python-version" in str(step)
    }
    assert versions == tested
    assert PROJECT["requires-python"] == f">={min(versions, key=lambda text: int(text.partition('.')[2]))}"


# -- the container file ----------------------------------------------------------------------------------------------


def test_what_the_container_file_copies_is_tracked_and_let_in() -> None:
    ignore = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line]
    assert ignore[0] == "*"
    for source in container_file.copied():
        listed = subprocess.run(["git", "ls-files", source], cwd=ROOT, check=False, capture_output=True, text=True)
        assert listed.stdout or listed.returncode, f"{source} is not tracked"
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore, source


def test_the_container_starts_the_program_on_a_python_that_it_knows() -> None:
    found = container_file.instructions()
    words = dict(found)
    assert found[0][0] == "FROM"
    version = re.fullmatch(r"python:(3\.\d+)-slim", words["FROM"])
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["classifiers"]
    assert json.loads(words["ENTRYPOINT"]) == [PROGRAM]
    assert PROGRAM in PROJECT["scripts"]
    assert words["USER"] != "root"
    assert {name for name, _ in found} <= {"FROM", "COPY", "RUN", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "CMD"}


# -- issues, citation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_can_be_filled_in_and_asks_for_the_machine(path: Path) -> None:
    form = yaml.safe_load(path.read_text("utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    names = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(names) == len(set(names))
    for field in form["body"]:
        assert FIELDS[field["type"]] <= field["attributes"].keys(), field
    labels = [field["attributes"].get("label", "") for field in form["body"]]
    assert any("doctor --json" in label for label in labels)
    for words in re.findall(rf"`{PROGRAM} ([^`]+)`", path.read_text("utf-8")):
        name, *options = words.split()
        assert name in COMMANDS, words
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        command.make_context(name, list(options)).close()


def test_the_citation_is_of_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    assert (found["version"], found["license"]) == (__version__, PROJECT["license"])
    assert "url" not in found
