"""Why a host cannot be used, in words, of what the network, the system or a certificate said."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

_NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_ENDED = {errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE}
_EXPIRED, _NOT_YET = 10, 9
_UNKNOWN_SIGNER = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 63, 64})
"""What OpenSSL calls these (`X509_V_ERR_…`)."""


@dataclass(frozen=True)
class Refusal:
    """`text` goes behind the name of the host; `hint` says what to do. `is_silent_port`: nothing listens
    there. `is_plain`: what does speaks no TLS.
    """

    text: str
    hint: str
    is_silent_port: bool = False
    is_plain: bool = False


def why(error: BaseException) -> Refusal | None:
    """What an error, or one that it was made of, says of the way to a host; None where it says nothing of it."""
    for one in _causes(error):
        found = _of_tls(one) if isinstance(one, ssl.SSLError) else _of_system(one)
        if found is not None:
            return found
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was made of, the innermost first: the outer ones only repeat it."""
    found = [error]
    while (inner := found[-1].__cause__ or found[-1].__context__) is not None and inner not in found:
        found.append(inner)
    return reversed(found)


def _of_system(error: BaseException) -> Refusal | None:
    if isinstance(error, socket.gaierror):
        return Refusal("is no name that is known here", "Write its address, or the name that the network has for it")
    if isinstance(error, ConnectionRefusedError):
        hint = "Start its server, so that others reach it, or name its port"
        return Refusal("is there, but nothing listens on that port", hint, is_silent_port=True)
    if isinstance(error, UnicodeError):
        return Refusal("is no name that a host can have", "Write its address")
    if isinstance(error, OSError) and error.errno in _NO_WAY:
        return Refusal(f"cannot be reached ({error.strerror})", "Is it on, and in the same network?")
    if isinstance(error, OSError) and error.errno in _ENDED:
        return Refusal("ends the connection", "Its server is starting or dying, or a firewall is between: see its log")
    return None


def _of_tls(error: ssl.SSLError) -> Refusal:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error)
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE"):
        return Refusal("does not speak TLS on that port", "Write http:// if it is a plain one", is_plain=True)
    return Refusal(f"ends the talk about TLS ({error.reason or error})", "Are both sides' certificates of one make?")


def _of_certificate(error: ssl.SSLCertVerificationError) -> Refusal:
    code = error.verify_code
    if code == _EXPIRED:
        return Refusal("has a certificate that has expired", "Give it a new one, or look at the clock here")
    if code == _NOT_YET:
        return Refusal("has a certificate that is not valid yet", "Look at the clocks of both")
    if code in _UNKNOWN_SIGNER:
        hint = "Let SSL_CERT_FILE name the authority that signed it"
        return Refusal("has a certificate of somebody whom this computer does not trust", hint)
    if code in _OTHER_NAME:
        return Refusal("has a certificate for another name", "Write the name that stands in it")
    return Refusal(f"has a certificate that does not hold ({error.verify_message})", "Give it another one")
