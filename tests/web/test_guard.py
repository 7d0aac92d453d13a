"""Who may ask, and what every answer says."""

from __future__ import annotations

from pathlib import Path

import pytest
import store_helpers
from served import asked

from ollama_sweep.store.writer import Store


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A sweep of one cell that waits."""
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        store_helpers.register(store, store_helpers.grid([64], [8]))
    return path


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8437", "127.0.0.1.evil.example", "", "192.168.1.7", "["]
)
def test_a_foreign_host_is_refused(db: Path, host: str) -> None:
    answer = asked(db).get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "num_ctx" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8437", "[::1]:8437", "localhost:9999"])
def test_this_computer_is_let_in_also_through_a_tunnel(db: Path, host: str) -> None:
    assert asked(db).get("/", headers={"host": host}).status_code == 200


def test_every_answer_allows_nothing_but_itself(db: Path) -> None:
    for path in ("/", "/static/page.js", "/nowhere", "/?sweep=x"):
        headers = asked(db).get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers


def test_nothing_is_written_by_asking(db: Path) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert asked(db).request(method, "/", headers={"origin": "http://127.0.0.1:8437"}).status_code == 405
