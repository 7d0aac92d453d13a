"""How a cluster is reached: its address and the certificates, and what of Dask is switched off for it."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ollama_sweep.core.errors import ConfigError, EngineUnavailable
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.text import one_line
from ollama_sweep.machine.address import Address, is_loopback, server
from ollama_sweep.machine.files import write_whole
from ollama_sweep.machine.hosts import certificates, refusals

if TYPE_CHECKING:
    from distributed.security import Security

PORT = 8786
CONNECT_S = 10.0
START = "Start it there: ollama-sweep scheduler --listen ADDRESS"
LOCAL, SLURM = "local", "slurm"
QUEUES = ("pbs", "lsf", "sge", "oar", "moab", "htcondor")
"""Those of dask-jobqueue that are no name of a host here."""
INSTALL = "pip install 'ollama-sweep[cluster]'"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
CELL = "cell"
"""The resource of which each worker has one, and each attempt takes one."""


@dataclass(frozen=True)
class Way:
    """The way to a scheduler: `url` is `tls://HOST:PORT`, or `tcp://…` where somebody wants it plain; `tls` is the
    folder with the certificates of this side, "" without. `host` is the name of a worker there, "" for none in
    particular.
    """

    url: str
    tls: str = ""
    host: str = ""

    def write(self, path: Path) -> None:
        """Raises StorageError."""
        write_whole(path, plain.as_text(self).encode("ascii"), private=True)

    @classmethod
    def read(cls, path: Path) -> Way:
        """Raises ConfigError."""
        try:
            text = path.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read ({error})", str(path)) from None
        return plain.of_text(cls, text, str(path))

    def security(self) -> Security:
        """What Dask is told of the certificates. Raises ConfigError where they do not hold now."""
        from distributed.security import Security

        if not self.tls:
            return Security(require_encryption=False)
        side = certificates.look(Path(self.tls))
        files = {"cert": str(side.certificate), "key": str(side.key)}
        roles = ("client", "scheduler", "worker")
        named = {f"tls_{role}_{what}": file for role in roles for what, file in files.items()}
        return Security(require_encryption=True, tls_ca_file=str(side.authority), **named)


def way_to(text: str, tls: Path | None, *, insecure: bool, where: str) -> Way:
    """A scheduler as a person writes it: `gpu-head`, `gpu-head:8786`, `tls://…`. Raises ConfigError."""
    scheme, _, rest = text.strip().rpartition("://")
    if scheme not in ("", "tls", "tcp"):
        raise ConfigError(f"{scheme}:// is not spoken here; write HOST:PORT or tls://HOST:PORT", where)
    if not rest:
        raise ConfigError("is empty; write HOST:PORT or tls://HOST:PORT", where)
    if rest.partition(":")[0] in QUEUES:
        queue = rest.partition(":")[0]
        raise ConfigError(f"{rest}: of queues only {SLURM}:N is started here; in a job of {queue} start a worker by "
                          "hand (ollama-sweep worker), and name its scheduler here", where)  # fmt: skip
    found = server(rest, allow_remote=True, port=PORT, where=where)
    if tls is not None and insecure:
        raise ConfigError("is encrypted with --tls; leave out one of --tls and --insecure", where)
    if tls is not None:
        if scheme == "tcp":
            raise ConfigError("tcp:// is not encrypted; leave it out, or --tls", where)
        certificates.look(tls)
        return Way(_url("tls", found), str(tls.absolute()))
    if not insecure:
        raise ConfigError("is reached with certificates: make them with `ollama-sweep hosts init` and name yours with "
                          "--tls FOLDER. Whoever reaches a port without them can run programs here; --insecure if all "
                          "who can are trusted", where)  # fmt: skip
    return Way(_url("tcp", found))


def _url(scheme: str, found: Address) -> str:
    return f"{scheme}://{found.root.partition('://')[2]}"


def is_on_loopback(way: Way) -> bool:
    """Nobody elsewhere can reach it."""
    return is_loopback(way.url.partition("://")[2].rpartition(":")[0].strip("[]"))


def probe(way: Way) -> None:
    """Look whether somebody listens there whom the certificates of this side believe.

    Raises ConfigError where they do not, EngineUnavailable where nobody answers.
    """
    host, _, port = way.url.partition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S) as plain_one:
            if way.tls:
                context: ssl.SSLContext = way.security().get_connection_args("client")["ssl_context"]
                context.wrap_socket(plain_one).close()
            elif not plain_one.recv(1):  # a scheduler speaks first, one with certificates does not
                raise ConnectionResetError(errno.ECONNRESET, "it ends the connection")
    except ssl.SSLError as error:
        raise ConfigError(_of_certificates(error), way.url) from error
    except TimeoutError as error:
        is_plain = "" if way.tls else ": it wants certificates (--tls FOLDER), or is no scheduler"
        raise EngineUnavailable(f"the scheduler at {way.url} does not answer{is_plain}") from error
    except OSError as error:
        found = refusals.why(error)
        hint = "" if found is None else f". {START}" if found.is_silent_port else f". {found.hint}"
        words = found.text if found is not None else f"does not answer ({error})"
        raise EngineUnavailable(f"the scheduler at {way.url} {words}{hint}") from error


def _of_certificates(error: ssl.SSLError) -> str:
    found = refusals.why(error)
    if found is not None and found.is_plain:
        return "does not speak TLS: it was started with --insecure, or is no scheduler"
    words = found.text if found is not None else f"does not talk about TLS ({error})"
    return f"{words}. One `ollama-sweep hosts init` makes those of all sides"


def dask() -> Any:
    """The package distributed, with what no sweep wants switched off. Raises ConfigError where it is missing.

    An attempt is bound to its host and tried once: whether it is tried again is the coordinator's to decide.
    """
    try:
        import dask.config
    except ImportError:
        raise ConfigError(f"a cluster needs the package distributed. Run: {INSTALL}", "--cluster") from None
    dask.config.set(
        {
            "logging.distributed": "critical",
            "distributed.scheduler.work-stealing": False,
            "distributed.scheduler.allowed-failures": 0,
            "distributed.scheduler.active-memory-manager.start": False,
            "distributed.worker.profile.enabled": False,
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": False,
        }
    )
    try:
        import distributed
    except ImportError:
        raise ConfigError(f"a cluster needs the package distributed. Run: {INSTALL}", "--cluster") from None
    return distributed


def host_resource(name: str) -> str:
    """What binds an attempt to a host, also after its worker was started again."""
    return f"host:{name}"


def host_name(text: str) -> str:
    """The name of a host, which stands in the name of a resource. Raises ConfigError."""
    if not _NAME.fullmatch(text):
        raise ConfigError(f"{one_line(text)} is no name of a host: up to 63 letters, digits, . _ -", "--name")
    return text
