"""`hosts check` and `hosts init`: one line for each host, whatever is wrong with it, and the others go on."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from namespaces import Network, network
from ollama_fixture import free_port
from openai_server import HTML, PAGE, Reply, Scripted, said, scripted_server
from sweep_runner import Ended
from sweeping import Program, program

from ollama_sweep.engines.ollama.reach import clock_off
from ollama_sweep.machine.hosts import certificates
from ollama_sweep.plan.hosts import checking

DIGEST = "365c0bd3c000a25d28ddbf732fe1c6add414de7275464c4e4d1c3b5fcb5d8ad1"
OTHER = "0123456789ab" + DIGEST[12:]


def tags(**models: str) -> Reply:
    return said({"models": [{"name": name, "model": name, "digest": one, "size": 1} for name, one in models.items()]})


@pytest.fixture
def host() -> Iterator[Callable[..., Scripted]]:
    """`host(m=DIGEST)` is an Ollama 0.34.0 with these models on a port of its own."""
    with contextlib.ExitStack() as stack:

        def make(version: str = "0.34.0", **models: str) -> Scripted:
            made = stack.enter_context(scripted_server())
            installed = tags(**{f"{name}:latest": digest for name, digest in models.items()})
            made.replies = {"/api/version": [said({"version": version})], "/api/tags": [installed]}
            return made

        yield make


Hosts = Callable[..., Scripted]


def lines(ended: Ended) -> list[str]:
    """A line for each host."""
    return [line for line in ended.stdout.splitlines() if line.startswith(("ok ", "warning ", "bad "))]


# -- hosts that are well -----------------------------------------------------------------------------------------------


def test_a_line_for_each_host(host: Hosts, program: Program) -> None:
    a, b = host(m=DIGEST), host(m=DIGEST, n=OTHER)
    ended = program("hosts", "check", a.host, f"http://{b.host}", "--model", "m").must()
    width = len(f"http://{b.host}")
    assert lines(ended) == [
        f"ok       {a.host:<{width}} Ollama 0.34.0, m (365c0bd3c000), clock as here, disk not known from here",
        f"ok       http://{b.host} Ollama 0.34.0, m (365c0bd3c000), clock as here, disk not known from here",
    ]
    assert ended.stdout.splitlines()[-1] == "2 of 2 hosts can be used"
    assert ended.stderr == ""
    assert {path for path, _, _ in a.asked} == {"/api/version", "/api/tags"}, "nothing is loaded or changed"
    assert program.files() == set()


def test_without_a_model_to_look_for_they_are_counted(host: Hosts, program: Program) -> None:
    ended = program("hosts", "check", host(m=DIGEST, n=OTHER).host).must()
    assert "Ollama 0.34.0, 2 models, clock as here" in ended.stdout


def test_the_models_and_the_host_of_a_sweep_file_are_asked_for(host: Hosts, program: Program) -> None:
    made = host(m=DIGEST)
    config = program.grid(engine=None, host=made.host, model=None, models=["m", "n"])
    ended = program("hosts", "check", config).must(5)
    assert lines(ended) == [f"bad      http://{made.host} n is not installed there. Run there: ollama pull n"]
    program("hosts", "check", config, "--model", "m").must()


def test_the_lanes_of_a_sweep_file_are_called_by_their_names(host: Hosts, program: Program) -> None:
    a, b = host(m=DIGEST), host(m=OTHER)
    config = program.grid(engine=None, hosts=[{"name": "left", "host": a.host}, {"name": "right", "host": b.host}])
    found = lines(program("hosts", "check", config).must(5))
    assert found[0].startswith(f"ok       left  http://{a.host} Ollama 0.34.0, m (365c0bd3c000)")
    assert found[1].startswith(f"bad      right http://{b.host} m is 0123456789ab on right and 365c0bd3c000 on left")


def test_for_programs(host: Hosts, program: Program) -> None:
    a, closed = host(m=DIGEST), f"127.0.0.1:{free_port()}"
    ended = program("hosts", "check", a.host, closed, "--model", "m", "--json").must(5)
    well, bad = json.loads(ended.stdout)
    assert well["state"] == "ok"
    assert (well["address"], well["version"], well["models"]) == (
        f"http://{a.host}", "0.34.0", {"m:latest": DIGEST})  # fmt: skip
    assert (well["clock_off_s"], well["free_bytes"]) == (0, None)
    assert (bad["check"], bad["state"], bad["version"], bad["models"]) == (closed, "bad", None, None)
    assert bad["hint"] == "Start it with: ollama serve"


# -- hosts that are not ------------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "password": ({"/api/version": [Reply(status=401)]}, r"is behind a password \(HTTP 401\)\. .*its own address"),
    "proxy login": (
        {"/api/version": [Reply(status=302, headers={"Location": "https://login.lab/"})]},
        r"sends elsewhere \(https://login.lab/\)\. Name the address of Ollama itself",
    ),
    "proxy without": ({"/api/version": [Reply(status=502)]}, r"answers /api/version with HTTP 502\. "),
    "a page": (
        {"/api/version": [Reply(PAGE, kind=HTML)]},
        r"answers as another program \(BaseHTTP.*\), not as Ollama\. Name the port of Ollama",
    ),
    "another API": ({"/v1/models": [said({"data": []})]}, "answers as another program"),
    "nonsense": ({"/api/version": [said({"version": 7})]}, "answers as another program"),
    "half": ({"/api/version": [said({"version": "0.34.0"})]}, "answers as another program"),
    "too old": (
        {"/api/version": [said({"version": "0.3.9"})], "/api/tags": [tags()]},
        r"has Ollama 0\.3\.9, which is too old \(need 0\.4\.0 or newer\)\. Update it there",
    ),
    "no model": (
        {"/api/version": [said({"version": "0.34.0"})], "/api/tags": [tags()]},
        r"has no model\. Run there: ollama pull m",
    ),
    "not that model": (
        {"/api/version": [said({"version": "0.34.0"})], "/api/tags": [tags(n=DIGEST)]},
        r"m is not installed there\. .*Run there: ollama pull m",
    ),
    "breaks off": ({"/api/version": [Reply("{", cut=True)]}, "cannot be asked|ends the connection"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_host_is_one_line_and_the_others_go_on(name: str, host: Hosts, program: Program) -> None:
    replies, words = BROKEN[name]
    broken, well = host(), host(m=DIGEST)
    broken.replies = replies
    ended = program("hosts", "check", broken.host, well.host, "--model", "m").must(5)
    bad, ok = lines(ended)
    assert re.fullmatch(rf"bad +{broken.host} +(?:{words}).*", bad), bad
    assert ok.startswith(f"ok       {well.host}")
    assert ended.stdout.splitlines()[-1] == "1 of 2 hosts can be used"
    assert ended.stderr == f"error: bad: {broken.host}\n"


def test_a_host_that_is_down_and_one_that_hangs(host: Hosts, program: Program) -> None:
    closed, well = f"127.0.0.1:{free_port()}", host(m=DIGEST)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"127.0.0.1:{silent.getsockname()[1]}"
        ended = program("hosts", "check", closed, hanging, well.host, "--timeout", "0.3").must(5)
    found = lines(ended)
    assert "is there, but nothing listens on that port. Start it with: ollama serve" in found[0]
    assert "takes the connection and does not answer within 0.30 s. It hangs: restart its server" in found[1]
    assert found[2].startswith("ok ")


def test_a_host_that_never_ends_its_answer_is_given_up(host: Hosts, program: Program) -> None:
    dripping = host(m=DIGEST)
    dripping.replies["/api/version"] = [Reply("{", wait=threading.Event())]
    ended = program("hosts", "check", dripping.host, "--timeout", "0.5").must(5)
    (line,) = lines(ended)
    assert re.search("does not come to an end with /api/version|does not answer within", line), line


def test_a_host_that_is_named_twice(host: Hosts, program: Program) -> None:
    made = host(m=DIGEST)
    ended = program("hosts", "check", made.host, f"http://{made.host}/", made.host).must(2)
    found = lines(ended)
    assert found[0].startswith("ok ")
    assert f"is named twice, also as {made.host}. Leave one of them out" in found[1]
    assert f"is named twice, also at http://{made.host}. Leave one of them out" in found[2]
    assert len([path for path, _, _ in made.asked if path == "/api/version"]) == 1


def test_one_server_by_two_names_is_asked_about(host: Hosts, program: Program) -> None:
    made = host(m=DIGEST)
    ended = program("hosts", "check", made.host, f"localhost:{made.port}").must()
    assert lines(ended)[1].startswith("warning ")
    assert f"answers at the same address as {made.host} ({made.host}). Leave one of them out, if" in lines(ended)[1]


def test_another_model_of_the_same_name_and_another_version(host: Hosts, program: Program) -> None:
    a, b, c = host(m=DIGEST), host(m=OTHER), host("0.33.0", m=DIGEST)
    ended = program("hosts", "check", a.host, b.host, c.host, "--model", "m").must(5)
    found = lines(ended)
    words = f"m is 0123456789ab on {b.host} and 365c0bd3c000 on {a.host}: another model. Run on both: ollama pull m"
    assert found[1] == f"bad      {b.host} {words}"
    assert found[2].startswith("warning ")
    assert f"{c.host} has Ollama 0.33.0, {a.host} has 0.34.0. Bring both to one version" in found[2]


@pytest.mark.parametrize("off_s", [3600, -3600])
def test_a_clock_that_is_off_is_worth_knowing(off_s: float, host: Hosts, program: Program) -> None:
    made = host(m=DIGEST)
    made.clock_off_s = off_s
    (line,) = lines(program("hosts", "check", made.host).must())
    assert line.startswith("warning ")
    assert re.search(r"its clock is (?:1 h 0|59) min.*ours\. Let a time server set both clocks", line), line
    assert "ahead" in line if off_s > 0 else "behind" in line


@pytest.mark.parametrize(
    ("date", "began_at", "ended_at", "off_s"),
    [
        ("Sat, 01 Jan 2028 00:00:00 GMT", 1830297600.0, 1830297600.5, 0.0),
        ("Sat, 01 Jan 2028 00:00:00 GMT", 1830297600.9, 1830297601.1, 0.0),
        ("Sat, 01 Jan 2028 00:00:10 GMT", 1830297600.0, 1830297602.0, 8.0),
        ("Sat, 01 Jan 2028 00:00:00 GMT", 1830297610.0, 1830297612.0, -9.0),
        ("Sat, 01 Jan 2028 00:00:00 GMT", 1830297597.0, 1830297611.0, 0.0),
        ("yesterday", 0.0, 1.0, None),
        ("", 0.0, 1.0, None),
    ],
)
def test_how_far_a_clock_is_off_at_least(date: str, began_at: float, ended_at: float, off_s: float | None) -> None:
    assert clock_off(date, began_at, ended_at) == off_s


def test_more_hosts_than_are_asked_at_once(host: Hosts, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "AT_ONCE", 2)
    made = [host(m=DIGEST) for _ in range(5)]
    ended = program("hosts", "check", *(one.host for one in made)).must()
    assert ended.stdout.splitlines()[-1] == "5 of 5 hosts can be used"


def test_an_engine_of_this_computer_only(program: Program, host: Hosts) -> None:
    config = program.grid(engine="fake", host=host(m=DIGEST).host)
    (line,) = lines(program("hosts", "check", config).must(5))
    assert "is not asked: this engine measures on its own computer only. Use Ollama on the other hosts" in line


def test_what_a_host_says_steers_no_terminal(host: Hosts, program: Program) -> None:
    evil = host(version="0.34.0\x1b[2J\u202e", **{"m\x1b[31m": "\x1b]0;x\x07"})
    page = host()
    page.replies = {"/api/version": [Reply(status=302, headers={"Location": "x\x1b[2J"})]}
    ended = program("hosts", "check", evil.host, page.host).must(5)
    assert "\x1b" not in ended.stdout + ended.stderr
    assert "\\x1b[2J" in ended.stdout
    assert "\x1b" not in program("hosts", "check", evil.host, "--json").must().stdout


# -- TLS on the way to a host ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def encrypted(folder: Path) -> Iterator[str]:
    """An Ollama behind TLS with the certificate of a folder."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {"version": "0.34.0", "models": [{"name": "m", "digest": DIGEST}]}
            content = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return None

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            return None

    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(folder / certificates.CERTIFICATE, folder / certificates.KEY)
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = secure.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_certificates_of_servers(program: Program, host: Hosts, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    certificates.make(folder)
    with encrypted(folder / "worker") as where:
        unknown = program("hosts", "check", f"https://{where}").must(5)
        trusted = {"SSL_CERT_FILE": str(folder / "worker" / certificates.AUTHORITY)}
        named = program("hosts", "check", f"https://{where}", env=trusted).must(5)
        plain = program("hosts", "check", f"http://{where}").must(5)
    assert "has a certificate of somebody whom this computer does not trust" in lines(unknown)[0]
    assert "has a certificate for another name" in lines(named)[0]
    assert re.search("cannot be asked|ends the connection|answers as another program", lines(plain)[0])
    made = host(m=DIGEST)
    ended = program("hosts", "check", f"https://{made.host}").must(5)
    assert "does not speak TLS on that port. Write http:// if it is a plain one" in lines(ended)[0]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), r"hosts check: name a sweep file, addresses, or --tls FOLDER"),
        (("http://me:secret@gpu-a",), r".*put credentials into api_key_env, not into the URL"),
        (("ftp://gpu-a",), r".*ftp:// is not spoken here; write http:// or https://"),
        (("gpu-a:port",), r".*gpu-a:port is not a host\. Write it like 127\.0\.0\.1:11434"),
        (("grid.yaml",), r"grid.yaml: file not found.*"),
        (("grid.yaml", "gpu-a"), r"grid.yaml: name one sweep file, or addresses; .*"),
        (("gpu-a", "--timeout", "nan"), r"--timeout: must be a number of seconds"),
    ],
)
def test_what_cannot_be_asked_is_one_line(words: tuple[str, ...], message: str, program: Program) -> None:
    ended = program("hosts", "check", *words).must(2)
    assert re.fullmatch(f"error: {message}\n", ended.stderr), ended.stderr
    assert "secret" not in ended.stderr
    assert (ended.stdout, program.files()) == ("", set())


def test_a_command_that_is_missing_or_misspelled(program: Program) -> None:
    assert "Missing command" in program("hosts").must(2).stderr
    assert "'chek'" in program("hosts", "chek").must(2).stderr


# -- init --------------------------------------------------------------------------------------------------------------


def test_init_says_what_goes_where_and_check_looks_at_it(program: Program) -> None:
    ended = program("hosts", "init", "--days", "90").must()
    assert re.match(r"hosts-tls: certificates for a coordinator and its workers, until \d{4}-\d\d-\d\d\n", ended.stdout)
    for words in ("hosts-tls/coordinator stays", "scp -r hosts-tls/worker HOST:", "hosts check --tls hosts-tls/coord"):
        assert words in ended.stdout
    again = program("hosts", "init").must(2)
    assert again.stderr == "error: hosts-tls: exists; use --force, or name another folder\n"
    program("hosts", "init", "--force", "--days", "10").must()
    ended = program("hosts", "check", "--tls", "hosts-tls/worker").must()
    assert re.fullmatch(
        r"warning +tls hosts-tls/worker: ollama-sweep worker \w+, ends on [\d-]+, in \d days\. "
        r"Make new ones in time: ollama-sweep hosts init hosts-tls --force\n",
        ended.stdout,
    ), ended.stdout


def test_check_names_what_is_wrong_with_certificates_beside_the_hosts(program: Program, host: Hosts) -> None:
    program("hosts", "init", "tls").must()
    (program.folder / "tls/worker/key.pem").write_bytes((program.folder / "tls/coordinator/key.pem").read_bytes())
    ended = program("hosts", "check", "--tls", "tls/worker", host(m=DIGEST).host).must(2)
    assert "tls/worker/key.pem: does not belong to cert.pem beside it. Copy the whole folder again" in lines(ended)[0]
    assert lines(ended)[1].startswith("ok ")
    found = json.loads(program("hosts", "check", "--tls", "tls/coordinator", "--json").must().stdout)
    assert [one["check"] for one in found] == ["tls"]


# -- a network that is cut ---------------------------------------------------------------------------------------------

SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content = json.dumps({"version": "0.34.0", "models": [{"name": "m", "digest": sys.argv[1]}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass

server = HTTPServer(("0.0.0.0", 11434), Handler)
print("listening")
server.serve_forever()
"""
SILENT = r"is not reached within 1\.00 s\. Is it on, and does its firewall let port 11434 through\?"


def test_a_host_that_is_cut_off_is_named_and_comes_back(network: Network, program: Program) -> None:
    a, b = network.host("a"), network.host("b")
    for one in (a, b):
        one.serve(SERVER, DIGEST)
    words = ("hosts", "check", a.address, b.address, "--model", "m", "--timeout", "1")
    assert all(line.startswith("ok ") for line in lines(program(*words).must()))
    b.cut()
    well, bad = lines(program(*words).must(5))
    assert well.startswith(f"ok       {a.address}")
    assert re.fullmatch(
        rf"bad +{b.address} http://{b.address}:11434 (?:{SILENT}|cannot be reached \(.*\)\. .*)", bad
    ), bad
    b.join()
    program(*words).must()


def test_a_host_that_is_there_without_a_server(network: Network, program: Program) -> None:
    (line,) = lines(program("hosts", "check", network.host("a").address, "--timeout", "30").must(5))
    assert "nothing listens on that port. Start it there so that others reach it: OLLAMA_HOST=0.0.0.0" in line


def test_the_short_helps_of_its_commands_are_said(program: Program) -> None:
    words = program("hosts", "--help").must().stdout
    assert "Is each host there" in words
    assert "Certificates for a coordinator" in words
