"""The certificates by which hosts know each other: made by one command, and looked at before one is used.

One authority signs a certificate for the coordinator and one for the workers. Its own key is thrown away at once: who
has none of the files can never get a certificate, and new ones are all made anew. Every file is of its owner only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.machine import files, places

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, Name

COORDINATOR, WORKER = ROLES = ("coordinator", "worker")
AUTHORITY, CERTIFICATE, KEY = NAMES = ("ca.pem", "cert.pem", "key.pem")
DAYS, MOST_DAYS = 365, 3650
INSTALL = "pip install 'ollama-sweep[cluster]'"
_LARGEST_MB = 1
_EARLIER = timedelta(days=1)
"""Certificates are valid from so long before they were made: clocks differ."""
_OTHERS_MAY = 0o077


@dataclass(frozen=True)
class Identity:
    """The files of one side, which belong together and are valid now. `name` is what stands in its certificate."""

    folder: Path
    name: str
    ends_at: datetime

    @property
    def authority(self) -> Path:
        return self.folder / AUTHORITY

    @property
    def certificate(self) -> Path:
        return self.folder / CERTIFICATE

    @property
    def key(self) -> Path:
        return self.folder / KEY


def make(folder: Path, *, days: int = DAYS, force: bool = False) -> datetime:
    """Make `coordinator/` and `worker/` in a folder, with three files each; when they end.

    What is there already is replaced only with `force`, and only where nothing but such files is there. Raises
    ConfigError, StorageError; nothing is changed then.
    """
    places.check_folder(folder, str(folder))
    _check_free(folder, force)
    now = datetime.now(UTC).replace(microsecond=0)
    ends_at = now + timedelta(days=days)
    contents = dict(_contents(now, ends_at))
    _write({folder / name: content for name, content in contents.items()})
    return ends_at


def look(folder: Path, now: datetime | None = None) -> Identity:
    """The files of one side, where they are whole, belong together and are valid now. Raises ConfigError."""
    x509 = _library()
    from cryptography.exceptions import InvalidSignature

    for name in NAMES:
        files.check_file(folder / name)
    _check_closed(folder / KEY)
    authority, certificate = (_certificate(x509, folder / name) for name in (AUTHORITY, CERTIFICATE))
    if _public(_private_key(folder / KEY)) != _public(certificate):
        raise ConfigError(f"does not belong to {CERTIFICATE} beside it. {_COPY}", str(folder / KEY))
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise ConfigError(f"is of somebody else: not signed by {AUTHORITY} beside it. {_COPY}",
                          str(folder / CERTIFICATE)) from None  # fmt: skip
    for name, one in ((CERTIFICATE, certificate), (AUTHORITY, authority)):
        _check_time(folder / name, one, now or datetime.now(UTC))
    return Identity(folder, _name_of(certificate), min(certificate.not_valid_after_utc, authority.not_valid_after_utc))


_COPY = "Copy the whole folder again, of one `ollama-sweep hosts init`"
_ANEW = "Make new ones with `ollama-sweep hosts init --force`, and copy them to every host"


def _library() -> Any:
    """Raises ConfigError where the package is missing."""
    try:
        from cryptography import x509
    except ImportError:
        raise ConfigError(f"certificates need the package cryptography. Run: {INSTALL}") from None
    return x509


# -- making ------------------------------------------------------------------------------------------------------------


def _check_free(folder: Path, force: bool) -> None:
    """That nothing is written over that somebody needs."""
    ours = {folder / role / name for role in ROLES for name in NAMES}
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            continue
        if not force:
            raise ConfigError("exists; use --force, or name another folder", str(folder))
        if path not in ours and not files.is_temporary(path):
            what = f"has other files than certificates ({path.relative_to(folder)})"
            raise ConfigError(f"{what}; name another folder", str(folder))


def _contents(now: datetime, ends_at: datetime) -> Iterator[tuple[str, bytes]]:
    """Every file by its name, keys first. Raises ConfigError where the package is missing."""
    x509 = _library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = serialization.Encoding.PEM
    token = secrets.token_hex(4)
    signer = ec.generate_private_key(ec.SECP256R1())
    issuer = _called(f"ollama-sweep authority {token}")
    authority = _authority(_begun(issuer, issuer, signer, (now, ends_at)), signer)
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        begun = _begun(_called(f"ollama-sweep {role} {token}"), issuer, key, (now, ends_at))
        begun = begun.add_extension(x509.SubjectAlternativeName([x509.DNSName(role)]), critical=False)
        certificate = _signed(begun, signer)
        yield f"{role}/{KEY}", key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        yield f"{role}/{CERTIFICATE}", certificate.public_bytes(pem)
        yield f"{role}/{AUTHORITY}", authority.public_bytes(pem)


def _called(name: str) -> Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: Name, issuer: Name, key: EllipticCurvePrivateKey, valid: tuple[datetime, datetime]
) -> CertificateBuilder:
    from cryptography import x509

    begun = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    begun = begun.serial_number(x509.random_serial_number())
    begun = begun.not_valid_before(valid[0] - _EARLIER).not_valid_after(valid[1])
    return begun.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _authority(begun: CertificateBuilder, signer: EllipticCurvePrivateKey) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    may = dict.fromkeys(_USES, False) | {"key_cert_sign": True}
    begun = begun.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return begun.add_extension(x509.KeyUsage(**may), critical=True).sign(signer, hashes.SHA256())


_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
"""What a key may be used for, as certificates call it."""


def _signed(begun: CertificateBuilder, signer: EllipticCurvePrivateKey) -> Certificate:
    """Either side listens and calls, so each may do both."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    begun = begun.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    begun = begun.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return begun.add_extension(signed_by, critical=False).sign(signer, hashes.SHA256())


def _write(contents: Mapping[Path, bytes]) -> None:
    """All of them or none: first everything is on the disk, then each takes its name."""
    waiting: dict[Path, Path] = {}
    made: list[Path] = []
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            _make_folder(path.parent, made)
            waiting[path] = temporary = files.temporary_beside(path)
            _write_closed(temporary, content)
        for path, temporary in waiting.items():
            os.replace(temporary, path)
    except OSError as error:
        for temporary in waiting.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise files.refused(path, error) from error
    for folder in {path.parent for path in contents}:
        files.flush_folder(folder)


def _make_folder(folder: Path, made: list[Path]) -> None:
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700)
        made.append(one)
    files.clear_leftovers(folder)


def _write_closed(path: Path, content: bytes) -> None:
    """Of its owner only from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


# -- looking -----------------------------------------------------------------------------------------------------------


def _check_closed(path: Path) -> None:
    if path.stat().st_mode & _OTHERS_MAY:
        raise ConfigError(f"can be read by others. Run: chmod 600 {path}", str(path))


def _certificate(x509: Any, path: Path) -> Certificate:
    try:
        found: Certificate = x509.load_pem_x509_certificate(_content(path))
    except ValueError:
        raise ConfigError(f"is no certificate, or is damaged. {_COPY}", str(path)) from None
    return found


def _private_key(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        return serialization.load_pem_private_key(_content(path), password=None)
    except TypeError:
        raise ConfigError("is locked with a password, and nobody is there to type it", str(path)) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"is no key, or is damaged. {_COPY}", str(path)) from None


def _content(path: Path) -> bytes:
    return files.read_text(path, _LARGEST_MB).encode()


def _public(of: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    encoded: bytes = of.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _check_time(path: Path, certificate: Certificate, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise ConfigError(f"has expired on {certificate.not_valid_after_utc:%Y-%m-%d}. {_ANEW}", str(path))
    if now < certificate.not_valid_before_utc:
        since = certificate.not_valid_before_utc
        raise ConfigError(f"is valid from {since:%Y-%m-%d} on only: is the clock here right?", str(path))


def _name_of(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string().removeprefix("CN=")
