"""A secret of the environment stays there: no child, no file, no database, no text has it."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import os
import sys
import zlib
from pathlib import Path

import pytest
from sweeping import Program, program

from ollama_sweep.core.outcome import Outcome, Status
from ollama_sweep.engines.ollama.programs import is_for_a_server, is_for_own_server
from ollama_sweep.machine import process, secrets, service

SECRETS = {
    "OLLAMA_HOST": "http://me:hunter2hunter2@gpu-box:11434",
    "OLLAMA_API_KEY": "sk-ollama-123456",
    "OLLAMA_SWEEP_NOTIFY": "ntfys://user:topsecret1@ntfy.example/topic mailto://a:secret-two@example.org",
    "LLAMA_ARG_API_KEY": "sk-llama-1234567",
    "LLAMA_ARG_HF_TOKEN": "hf_abcdefghijk",
    "LLAMA_ARG_MODEL_URL": "https://host/m.gguf?token=tok123456",
    "LLM_API_KEY": "sk-proj-99999999",
    "SOME_PASSWORD": "correct horse battery",
    "https_proxy": "http://proxyuser:proxypass@proxy:3128",
}
HARMLESS = {"OLLAMA_MODELS": "/models", "PATH": os.environ["PATH"], "OLLAMA_SWEEP_TOKEN": "abc", "KEYBOARD": "de",
            "OLLAMA_ORIGINS": "http://a.example,https://b.example", "LLAMA_ARG_API_KEY_FILE": "/keys"}  # fmt: skip
HIDDEN = ("hunter2hunter2", "sk-ollama", "topsecret1", "secret-two", "sk-llama", "hf_abc", "tok123456", "sk-proj",
          "battery", "proxypass")  # fmt: skip


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, **HARMLESS}.items():
        monkeypatch.setenv(name, value)


def test_which_variables_carry_a_secret() -> None:
    assert [name for name, value in SECRETS.items() if not secrets.is_secret(name, value)] == []
    assert [name for name, value in HARMLESS.items() if secrets.is_secret(name, value)] == []


def test_a_child_gets_none_that_it_does_not_need(environment: None) -> None:
    show = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
    seen = json.loads(process.run(show, timeout_s=60).stdout)
    assert not seen.keys() & SECRETS.keys()
    assert seen.keys() >= HARMLESS.keys()
    needed = secrets.without(os.environ, is_for_a_server).keys() & SECRETS.keys()
    assert needed == {"OLLAMA_HOST", "OLLAMA_API_KEY", "LLAMA_ARG_API_KEY", "LLAMA_ARG_HF_TOKEN", "LLAMA_ARG_MODEL_URL"}
    assert not is_for_own_server("LLAMA_ARG_API_KEY")
    assert is_for_own_server("LLAMA_ARG_HF_TOKEN")


def test_no_service_file_has_one(environment: None, tmp_path: Path) -> None:
    settings = service.settings_of(os.environ)
    assert not settings.keys() & SECRETS.keys()
    plan = service.Plan("s", ("run", "s.yaml"), tmp_path, tmp_path / "log", settings)
    for text in (service.unit(plan), service.plist(plan)):
        assert [hidden for hidden in HIDDEN if hidden in text] == []
    assert service.secrets_of(os.environ) == sorted(name for name in SECRETS if name.isupper() and name[0] in "OL")


@pytest.mark.parametrize(
    "text",
    [
        "Get http://me:hunter2hunter2@gpu-box/api: refused",
        "https://host/x?a=1&token=tok123456&b=2",
        "headers: {'Authorization': 'Bearer sk-proj-99999999'}",
        "the key sk-llama-1234567 is wrong",
        "correct horse battery was not accepted; topsecret1 neither, nor secret-two",
        "https://hf_abcdefghijk@huggingface.co/model",
    ],
)
def test_a_text_is_without_them(environment: None, text: str) -> None:
    masked = secrets.masked(text)
    assert "***" in masked
    assert [hidden for hidden in HIDDEN if hidden in masked] == []


def test_an_ordinary_text_stays_as_it_is(environment: None) -> None:
    text = "num_ctx 512: 12:30@night, me@example.org, http://127.0.0.1:11434/api/tags?name=x sha256:ab@cd key=value"
    assert secrets.masked(text) == text


def test_an_engines_error_is_stored_and_shown_without_them(program: Program) -> None:
    said = "could not reach http://me:hunter2hunter2@gpu-box (key sk-llama-1234567)"
    program.script(version=said, cells={}, oom_above=1)
    given = {name: value for name, value in SECRETS.items() if name != secrets.NOTIFY}
    ended = program("run", program.grid(num_ctx=512, num_batch=2), env=given)
    assert "could not reach http://***@gpu-box (key ***)" in ended.must().stdout
    files = [file for file in program.folder.rglob("*") if file.is_file() and file.name != "fake.json"]
    kept = b"".join(file.read_bytes() for file in files)
    for hidden in HIDDEN:
        assert hidden not in ended.stdout + ended.stderr
        assert hidden.encode() not in kept, hidden


@pytest.mark.parametrize(
    "line",
    ["LLAMA_ARG_API_KEY: sk-llama-1234567", "LLAMA_ARG_MODEL_URL: 'https://me:hunter2hunter2@h/m.gguf'",
     "LLAMA_ARG_HF_TOKEN: [hf_abcdefghijk, other]", "OLLAMA_REMOTE: 'https://h/?token=tok123456'"],
)  # fmt: skip
def test_a_setting_that_carries_one_is_no_setting_of_a_file(line: str, program: Program) -> None:
    config = program.grid(server="managed")
    config.write_text(config.read_text() + line + "\n")
    said = program("plan", config).must(2).stderr
    name = line.partition(":")[0]
    assert f"{name}: carries a secret, which is not for a file; set {name} in the environment" in said
    assert [hidden for hidden in HIDDEN if hidden in said] == []


def test_a_password_in_the_host_is_refused_and_not_repeated(program: Program) -> None:
    for host in ("http://me:hunter2hunter2@gpu-box", "me:hunter2/hunter2@gpu-box:1", "http://gpu-box/?token=tok123456"):
        said = program("models", "--engine", "ollama_http", env={"OLLAMA_HOST": host}).must(2).stderr
        assert said == "error: OLLAMA_HOST: put credentials into api_key_env, not into the URL\n"
