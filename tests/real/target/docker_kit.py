"""A real docker engine of our own for tests: private data, socket and control groups, no network of its own.

Its programs are those on the path, or those that tests/setup_system.py unpacked; nothing of it is installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from systemd_kit import remove_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNPACKED = Path("/var/cache/blackstart-tests/docker")
PROGRAMS = ("dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker")
PATH = f"{UNPACKED}:{os.environ.get('PATH', os.defpath)}:/usr/sbin"
GROUPS = Path("/sys/fs/cgroup")
# In a mount namespace: a /run of its own for the engine's many sockets, and what it writes into /etc and /opt
# is gone with it.
BOOT = """
mount --make-rprivate / && mount -t tmpfs tmpfs /run || exit 1
for place in etc opt; do
    mkdir -p /run/over/$place/upper /run/over/$place/work
    where=/run/over/$place
    mount -t overlay -o lowerdir=/$place,upperdir=$where/upper,workdir=$where/work overlay /$place
done
exec setpriv --pdeathsig TERM dockerd --data-root $FOLDER/data --exec-root /run/docker --pidfile $FOLDER/pid \
    --host unix://$FOLDER/docker.sock --bridge=none --iptables=false --ip6tables=false --storage-driver=vfs \
    --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent $GROUP
"""
# Nothing of the image is our own: the container sees the programs of this host, and cannot change them.
HOST = [
    part for place in ("/usr", "/bin", "/lib", "/lib64", "/etc") for part in ("-v", f"{place}:{place}:ro")
]


def missing() -> str | None:
    """Say why there can be no docker engine of our own here, or None."""
    if os.geteuid() != 0:
        return "a private docker engine needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"no {', '.join(absent)}: tests/setup_system.py unpacks docker.io where that is possible"
    tried = subprocess.run(
        ["dockerd", "--version"], env={"PATH": PATH}, capture_output=True, text=True, check=False
    )
    return f"dockerd cannot be run: {tried.stderr.strip()}" if tried.returncode != 0 else None


class Docker:
    """An engine: `socket` is where it listens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "docker.sock"
        self._group = f"blackstarttest{os.getpid()}"
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Where the commands find this engine, and no other."""
        return {"DOCKER_HOST": f"unix://{self.socket}", "PATH": PATH}

    def start(self) -> None:
        """Start it, and wait until it answers; give it an image with nothing in it."""
        own = {"FOLDER": str(self._folder), "GROUP": f"/{self._group}", "TMPDIR": str(self._folder)}
        with (self._folder / "log").open("ab") as log:
            self._popen = subprocess.Popen(
                ["unshare", "--mount", "/bin/sh", "-c", BOOT],
                env={**os.environ, **self.environment, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.until(lambda: self.docker("version", check=False).returncode == 0)

    def image(self) -> None:
        """Make the image `empty`."""
        archive = self._folder / "empty.tar"
        with tarfile.open(archive, "w") as tar:
            made = tarfile.TarInfo("tmp")
            made.type, made.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(made)
        self.docker("import", str(archive), "empty:1")

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Ask the engine by its own command."""
        command = [str(shutil.which("docker", path=PATH)), *arguments]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, (arguments, done.stderr)
        return done

    def run(self, name: str, *command: str, options: tuple[str, ...] = ()) -> None:
        """Make a container with this host's programs and network, and start it."""
        self.docker(
            "run", "--detach", "--name", name, "--network", "host", *HOST, *options, "empty:1", *command
        )

    def value(self, name: str, what: str) -> str:
        """Return something of `docker inspect`."""
        return self.docker("inspect", "--format", f"{{{{{what}}}}}", name).stdout.strip()

    def main_pid(self, name: str) -> int:
        """Return the main process of a container, 0 for none."""
        return int(self.value(name, ".State.Pid"))

    def kill(self, name: str) -> None:
        """Kill the main process of a container."""
        os.kill(self.main_pid(name), signal.SIGKILL)

    def until(self, condition: Callable[[], bool], limit_s: float = 30.0) -> None:
        """Wait for a condition."""
        end = time.monotonic() + limit_s
        while not condition():
            log = (self._folder / "log").read_text(errors="replace")
            assert time.monotonic() < end, f"it does not come; the log: {log[-2000:]}"
            time.sleep(0.05)

    def stop(self) -> None:
        """End the engine, and with it its containers."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            self._popen.wait(timeout=60)

    def end(self) -> None:
        """End it with all that it started, and remove its control groups."""
        if self._popen is not None and self._popen.poll() is None:
            for name in self.docker("ps", "--all", "--quiet", check=False).stdout.split():
                self.docker("rm", "--force", name, check=False)
        self.stop()
        groups = [folder for folder in GROUPS.rglob(self._group) if folder.is_dir()]
        end = time.monotonic() + 20.0
        while any(group.exists() for group in groups) and time.monotonic() < end:
            for group in groups:
                remove_group(group)
            time.sleep(0.01)
        assert not any(group.exists() for group in groups), "a control group is left"


@contextlib.contextmanager
def running() -> Iterator[Docker]:
    """Have an engine for a while; its folder has a short name, because sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="bs-dk-"))
    made = Docker(folder)
    try:
        made.start()
        made.image()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)
