"""Certificates from one command: whole, of their owner only, and what is wrong with others is one line."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.machine import files
from ollama_sweep.machine.hosts import certificates, refusals

FILES = sorted(f"{role}/{name}" for role in certificates.ROLES for name in certificates.NAMES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    certificates.make(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    copy = tmp_path / "tls"
    shutil.copytree(made, copy)
    return copy


def there(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def context(folder: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    """As a transport uses them: both sides show a certificate of the one authority, whatever their names are."""
    found = ssl.create_default_context(purpose, cafile=str(folder / certificates.AUTHORITY))
    found.load_cert_chain(folder / certificates.CERTIFICATE, folder / certificates.KEY)
    found.check_hostname = False
    found.verify_mode = ssl.CERT_REQUIRED
    found.verify_flags |= ssl.VERIFY_X509_STRICT
    return found


def talk(server: Path, client: Path) -> str:
    """What a client hears of a server, each with the certificates of a folder. Raises ssl.SSLError."""
    ours, theirs = socket.socketpair()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            with context(server, ssl.Purpose.CLIENT_AUTH).wrap_socket(ours, server_side=True) as secure:
                secure.sendall(b"hello")
        except OSError as error:
            failed.append(error)
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with context(client, ssl.Purpose.SERVER_AUTH).wrap_socket(theirs) as secure:
            heard = secure.recv(5).decode()
    finally:
        theirs.close()
        thread.join()
    if failed:
        raise failed[0]
    return heard


# -- making ------------------------------------------------------------------------------------------------------------


def test_both_sides_get_what_they_need_and_nobody_else_may_read_it(made: Path) -> None:
    assert there(made) == FILES
    assert {path.stat().st_mode & 0o777 for path in made.rglob("*.pem")} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (made, *(made / role for role in certificates.ROLES))} == {0o700}


def test_they_are_closed_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        certificates.make(tmp_path / "tls")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").rglob("*.pem")} == {0o600}


@pytest.mark.parametrize("roles", [certificates.ROLES, certificates.ROLES[::-1], ("worker", "worker")])
def test_the_two_sides_believe_each_other(made: Path, roles: tuple[str, str]) -> None:
    assert talk(made / roles[0], made / roles[1]) == "hello"


def test_a_side_of_another_making_is_not_believed(made: Path, tmp_path: Path) -> None:
    certificates.make(tmp_path / "other")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        talk(made / "coordinator", tmp_path / "other" / "worker")


def test_they_end_when_it_is_said(made: Path, tmp_path: Path) -> None:
    ends_at = certificates.make(tmp_path / "tls", days=7)
    assert timedelta(days=6, hours=23) < ends_at - datetime.now(UTC) <= timedelta(days=7)
    for role in certificates.ROLES:
        found = certificates.look(tmp_path / "tls" / role)
        assert found.ends_at == ends_at
        assert role in found.name
        assert (found.authority, found.certificate, found.key) == tuple(
            tmp_path / "tls" / role / name for name in certificates.NAMES
        )


def test_what_is_there_is_replaced_only_with_force(folder: Path) -> None:
    before = (folder / "worker/key.pem").read_bytes()
    with pytest.raises(ConfigError, match=r"tls: exists; use --force, or name another folder"):
        certificates.make(folder)
    assert (folder / "worker/key.pem").read_bytes() == before
    certificates.make(folder, force=True)
    assert there(folder) == FILES
    assert (folder / "worker/key.pem").read_bytes() != before
    assert talk(folder / "coordinator", folder / "worker") == "hello"


def test_a_folder_with_files_of_somebody_is_left_alone_also_with_force(folder: Path) -> None:
    (folder / "worker/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"has other files than certificates \(worker/notes.txt\)"):
        certificates.make(folder, force=True)
    assert (folder / "worker/notes.txt").read_text() == "mine"


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    assert there(tmp_path) == FILES


@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, done = certificates._write_closed, list[Path]()

    def full(path: Path, content: bytes) -> None:
        if len(done) == at:
            raise OSError(28, "No space left on device")
        done.append(path)
        write(path, content)

    monkeypatch.setattr(certificates, "_write_closed", full)
    with pytest.raises(StorageError, match="no space left"):
        certificates.make(tmp_path / "new" / "tls")
    assert list(tmp_path.iterdir()) == []


def test_those_that_are_there_outlive_a_disk_that_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certificates, "_write_closed", full)
    with pytest.raises(StorageError, match="no space left"):
        certificates.make(folder, force=True)
    assert there(folder) == FILES
    assert talk(folder / "coordinator", folder / "worker") == "hello"


def test_what_a_dead_process_left_is_cleared_and_stops_nobody(folder: Path) -> None:
    left = files.temporary_beside(folder / "worker/key.pem")
    left = left.with_name(left.name.replace(str(os.getpid()), "4194305"))
    left.write_text("half")
    certificates.make(folder, force=True)
    assert there(folder) == FILES


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        certificates.make(tmp_path / "file" / "tls")


def test_a_missing_package_is_one_line(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    line = r"certificates need the package cryptography. Run: pip install 'ollama-sweep\[cluster\]'"
    with pytest.raises(ConfigError, match=line):
        certificates.make(tmp_path / "tls")
    with pytest.raises(ConfigError, match=line):
        certificates.look(made / "worker")
    assert list(tmp_path.iterdir()) == []


# -- looking -----------------------------------------------------------------------------------------------------------


def refused(folder: Path, message: str, now: datetime | None = None) -> None:
    with pytest.raises(ConfigError, match=message) as said:
        certificates.look(folder, now)
    assert "\n" not in str(said.value)


def test_one_that_has_expired_and_one_that_is_not_valid_yet(made: Path) -> None:
    ends_at = certificates.look(made / "worker").ends_at
    assert certificates.look(made / "worker", ends_at).ends_at == ends_at
    refused(
        made / "worker", r"cert.pem: has expired on \d{4}-\d\d-\d\d\. Make new ones", ends_at + timedelta(seconds=1)
    )
    refused(made / "worker", "cert.pem: is valid from .* is the clock here right", datetime(2020, 1, 1, tzinfo=UTC))


def test_a_key_that_does_not_belong(folder: Path) -> None:
    shutil.copy(folder / "coordinator/key.pem", folder / "worker/key.pem")
    refused(folder / "worker", "worker/key.pem: does not belong to cert.pem beside it")


def test_a_certificate_of_somebody_else(folder: Path, tmp_path: Path) -> None:
    certificates.make(tmp_path / "other")
    shutil.copy(tmp_path / "other/worker/ca.pem", folder / "worker/ca.pem")
    refused(folder / "worker", "worker/cert.pem: is of somebody else: not signed by ca.pem beside it")


@pytest.mark.parametrize(("name", "what"), [("cert.pem", "certificate"), ("ca.pem", "certificate"), ("key.pem", "key")])
def test_files_that_are_damaged_or_missing(name: str, what: str, folder: Path) -> None:
    file = folder / "worker" / name
    file.write_text(file.read_text()[:80])
    refused(folder / "worker", f"{name}: is no {what}, or is damaged. Copy the whole folder again")
    file.unlink()
    refused(folder / "worker", f"{name}: file not found")


def test_a_key_with_a_password_and_one_that_all_may_read(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization as forms

    file = folder / "worker/key.pem"
    key = forms.load_pem_private_key(file.read_bytes(), None)
    locked = forms.BestAvailableEncryption(b"secret")
    file.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, locked))
    refused(folder / "worker", "key.pem: is locked with a password")
    file.chmod(0o640)
    refused(folder / "worker", "key.pem: can be read by others. Run: chmod 600 ")


# -- why a host cannot be used -----------------------------------------------------------------------------------------


def certificate_error(code: int) -> ssl.SSLError:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code, error.verify_message = code, "some reason"
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens on that port"),
        (socket.gaierror(-2, "Name or service not known"), "is no name that is known here"),
        (OSError(113, "No route to host"), r"cannot be reached \(No route to host\)"),
        (ConnectionResetError(104, "Connection reset by peer"), "ends the connection"),
        (certificate_error(10), "a certificate that has expired"),
        (certificate_error(9), "a certificate that is not valid yet"),
        (certificate_error(18), "a certificate of somebody whom this computer does not trust"),
        (certificate_error(62), "a certificate for another name"),
        (certificate_error(23), r"a certificate that does not hold \(some reason\)"),
    ],
)
def test_the_reason_is_found_below_what_was_made_of_it(error: OSError, words: str) -> None:
    try:
        try:
            raise error
        except OSError as inner:
            raise RuntimeError("all connection attempts failed") from inner
    except RuntimeError as outer:
        found = refusals.why(outer)
    assert found is not None
    assert re.search(words, found.text)
    assert found.hint


def test_an_error_that_says_nothing_of_the_way_is_left_to_others() -> None:
    assert refusals.why(ValueError("anything")) is None
