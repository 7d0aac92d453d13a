"""With `--control` a page may pause and stop a sweep: who has the token, from this page only."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest
from ollama_fixture import until
from served import HERE, PORT, asked, serving
from sweeping import GRID, Program
from sweeping import program as program  # a fixture

from ollama_sweep.core.errors import SweepError
from ollama_sweep.store.beside import paused_since
from ollama_sweep.store.reader import Reader
from ollama_sweep.web.guard import Access

TOKEN = "a-token-of-a-test"
ACCESS = Access(TOKEN, port=PORT, has_control=True)
BEARER = {"authorization": f"Bearer {TOKEN}"}
OWN = {"origin": HERE}


@pytest.fixture
def db(program: Program) -> Path:
    """A finished sweep."""
    program("run", program.config(**GRID)).must()
    return program.folder / "sweeps.db"


def measures(db: Path) -> object:
    try:
        with Reader.open(db) as reader:
            return reader.running(1)
    except SweepError:
        return None


def test_the_token_becomes_a_cookie_and_leaves_the_address(db: Path) -> None:
    page = asked(db, ACCESS)
    answer = page.get(f"/?sweep=grid&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?sweep=grid")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert page.get("/").status_code == 200
    assert TOKEN not in page.get("/").text


@pytest.mark.parametrize("path", ["/", "/sweeps", "/cell?at=0", "/events", "/metrics", "/api/sweeps", "/?token=wrong"])
def test_without_the_token_nothing_is_told(db: Path, path: str) -> None:
    answer = asked(db, ACCESS).get(path)
    assert answer.status_code == 401
    assert "grid" not in answer.text
    wrong = asked(db, ACCESS).get(path, headers={"authorization": "Bearer wrong"})
    assert wrong.status_code == 401


def test_a_redirect_leads_nowhere_else(db: Path) -> None:
    answer = asked(db, ACCESS).get(f"{HERE}//evil.example/?token={TOKEN}")
    assert not answer.headers["location"].startswith("//")


def test_machines_give_it_as_bearer(db: Path) -> None:
    page = asked(db, ACCESS)
    assert page.get("/api/status", headers=BEARER).json()["done"] == 4
    assert "ollama_sweep_cells_done" in page.get("/metrics", headers=BEARER).text


def test_a_button_of_elsewhere_does_nothing(db: Path) -> None:
    page = asked(db, ACCESS)
    page.get(f"/?token={TOKEN}")
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:1"}):
        assert page.post("/control/pause", headers=headers).status_code == 403
    assert asked(db, ACCESS).post("/control/pause", headers=OWN).status_code == 401
    assert paused_since(db) is None


def test_there_are_no_buttons_without_control(db: Path) -> None:
    assert asked(db).post("/control/pause", headers=OWN).status_code in (404, 405)
    assert paused_since(db) is None


def test_a_sweep_that_does_not_run_is_not_asked(db: Path) -> None:
    answer = asked(db, ACCESS).post("/control/stop", headers=BEARER)
    assert answer.status_code == 409
    assert "no sweep runs" in answer.json()["error"]
    assert asked(db, ACCESS).post("/control/explode", headers=BEARER).status_code == 404


def test_a_sweep_is_paused_goes_on_and_stops_by_its_buttons(program: Program) -> None:
    """The address with its token stands beside the database, for its owner only, and in no output."""
    gate = program.folder / "gate"
    program.script(gate=str(gate))
    running = program.start("run", program.config(**GRID), env=program.environment())
    db = program.folder / "sweeps.db"
    until("it measures", lambda: measures(db))
    with serving(program, "--control", "--port", "0") as found:
        kept = program.folder / "sweeps.db.serve"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        address = kept.read_text("utf-8").strip()
        assert address.startswith(found.url)
        token = address.partition("token=")[2]
        assert token not in found.process.said
        with httpx.Client(base_url=found.url, headers={"origin": found.url.rstrip("/")}, timeout=60) as page:
            assert page.get(address, follow_redirects=True).text.count("<button>") >= 3
            assert page.post("control/pause", headers={"accept": "text/html"}).headers["location"] == "../"
            assert paused_since(db) is not None
            assert page.post("control/continue").json() == {"said": "the sweep goes on"}
            assert paused_since(db) is None
            assert page.post("control/stop").status_code == 200
            gate.touch()
            running.wait(120).must(143)
        ended = found.process
        ended.kill(15)
        assert token not in (said := ended.wait(60).must(0)).stdout + said.stderr
    assert not kept.exists()


def test_an_address_of_the_network_has_a_token(program: Program, db: Path) -> None:
    with serving(program, "--host", "0.0.0.0", "--port", "0") as found, httpx.Client(timeout=60) as anybody:
        here = found.url.replace("0.0.0.0", "127.0.0.1")
        assert anybody.get(here).status_code == 401
        token = (program.folder / "sweeps.db.serve").read_text("utf-8").strip().partition("token=")[2]
        bearer = {"authorization": f"Bearer {token}"}
        assert anybody.get(here, headers=bearer).status_code == 200
        assert anybody.get(here, headers={**bearer, "host": "evil.example"}).status_code == 421
        assert anybody.post(f"{here}control/pause", headers=bearer).status_code in (404, 405)
