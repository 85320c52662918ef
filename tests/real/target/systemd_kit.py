"""A real systemd of our own for tests: a user's manager in a private control group, with a private journal.

The machine need not have been booted by systemd. Its processes are in our pid namespace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from blackstart.host import cgroups, procs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SYSTEMD = "/usr/lib/systemd/systemd"
JOURNALD = "/usr/lib/systemd/systemd-journald"
GROUPS = Path("/sys/fs/cgroup")
# In a mount namespace: a /run of its own, in which the manager believes that systemd booted this machine.
BOOT = f"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/journald.conf.d /run/log/journal
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nForwardToSyslog=no\\nForwardToWall=no\\n' \
    > /run/systemd/journald.conf.d/test.conf
setpriv --pdeathsig KILL {JOURNALD} &
while ! test -S /run/systemd/journal/stdout; do sleep 0.01; done
for group in $GROUPS_OF_OURS; do echo $$ > $group/cgroup.procs; done
exec setpriv --pdeathsig KILL {SYSTEMD} --user --unit=test.target --log-target=null
"""


# As PID 1 of a pid namespace, and so the system's manager: it sees the hierarchies of units only, and changes
# no setting of the kernel.
BOOT_SYSTEM = f"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mkdir -p /run/systemd/system
for group in $GROUPS_OF_OURS; do
    echo 1 > $group/cgroup.procs
    place=$(dirname $(dirname $group))
    if test $place != /sys/fs/cgroup; then
        mkdir -p /run/groups/$(basename $place)
        mount --bind $place /run/groups/$(basename $place)
    fi
done
if test -d /run/groups; then
    mount -t tmpfs tmpfs /sys/fs/cgroup
    for group in /run/groups/*; do
        mkdir /sys/fs/cgroup/$(basename $group)
        mount --move $group /sys/fs/cgroup/$(basename $group)
    done
    mount -o remount,ro /sys/fs/cgroup
fi
export container=blackstart-test
exec {SYSTEMD} --system --unit=test.target --log-target=null --show-status=0
"""


_AS_PID_1 = ("--pid", "--ipc", "--uts", "--fork", "--kill-child", "/bin/sh", "-c", BOOT_SYSTEM)


def missing() -> str | None:
    """Say why there can be no systemd of our own here, or None."""
    if os.geteuid() != 0:
        return "a private systemd needs root (mounts, a control group of its own)"
    programs = (SYSTEMD, JOURNALD, *(f"/usr/bin/{name}" for name in ("systemctl", "journalctl", "nsenter")))
    absent = [name for name in programs if not Path(name).exists()]
    if absent:
        return f"{', '.join(absent)}: not installed (apt-get install systemd)"
    if not _hierarchies():
        return "systemd needs a control group hierarchy of version 2, or the one called name=systemd"
    return None


class Systemd:
    """A user's manager: `runtime` is its XDG_RUNTIME_DIR, `environment` makes all commands find it.

    Or the system's, in a pid namespace: then `inside` is how a command gets to where it is.
    """

    def __init__(self, folder: Path, *, system: bool = False) -> None:
        self._system = system
        self.inside: list[str] = []
        self.runtime = folder / "run"
        self.units = folder / "units"
        self.programs = folder / "bin"
        self._log = folder / "log"
        for made in (self.runtime, self.units, self.programs):
            made.mkdir(mode=0o700)
        (self.units / "test.target").write_text("[Unit]\nDescription=nothing\n")
        # A slice with `user@0.service` in it: from there the journal knows units of a user's manager.
        self._groups = [where / f"blackstarttest{os.getpid()}.slice" for where in _hierarchies()]
        self.popen: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Where the commands find this manager, and no other."""
        path = f"{self.programs}:{os.environ['PATH']}"
        return {"XDG_RUNTIME_DIR": str(self.runtime), "PATH": path, "DBUS_SESSION_BUS_ADDRESS": "none:"}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        for group in self._groups:
            (group / "user@0.service").mkdir(parents=True)
        own = {"GROUPS_OF_OURS": " ".join(str(group / "user@0.service") for group in self._groups)}
        environment = {**os.environ, **self.environment, **own, "SYSTEMD_UNIT_PATH": str(self.units)}
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                ["unshare", "--mount", *(_AS_PID_1 if self._system else ("/bin/sh", "-c", BOOT))],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self._system:
            self._enter()
            return
        # The journal of its units lies in its mounts.
        follow = self.programs / "journalctl"
        follow.write_text(
            f'#!/bin/sh\nexec nsenter --mount=/proc/{self.popen.pid}/ns/mnt /usr/bin/journalctl "$@"\n'
        )
        follow.chmod(0o755)
        self.until(lambda: self.ctl("show", "--property=Version", check=False).returncode == 0)

    def _enter(self) -> None:
        """Find PID 1 of the new namespace, the only child of `unshare`."""
        assert self.popen is not None, "started"
        outside = self.popen.pid
        self.until(lambda: bool(_children(outside)))
        self.inside = ["nsenter", "--mount", "--pid", f"--target={_children(outside)[0]}"]
        self.until(lambda: self.ctl("show", "--property=Version", check=False).returncode == 0)

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Ask the manager."""
        environment = {**os.environ, **self.environment}
        which = [] if self._system else ["--user"]
        command = [*self.inside, "/usr/bin/systemctl", *which, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, (arguments, done.stderr)
        return done

    def service(
        self, name: str, command: str, limits: str = "StartLimitIntervalSec=0", **settings: str
    ) -> None:
        """Describe a service and start it."""
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        unit = f"[Unit]\nDefaultDependencies=no\n{limits}\n[Service]\nExecStart={command}\n{lines}"
        (self.units / f"{name}.service").write_text(unit)
        self.ctl("daemon-reload")
        self.ctl("start", f"{name}.service")

    def value(self, name: str, key: str) -> str:
        """Return a property of a unit."""
        return self.ctl("show", f"--property={key}", "--value", f"{name}.service").stdout.strip()

    def main_pid(self, name: str) -> int:
        """Return the main process of a unit, 0 for none."""
        return int(self.value(name, "MainPID"))

    def kill(self, name: str) -> None:
        """Kill the main process of a unit."""
        os.kill(self.main_pid(name), signal.SIGKILL)

    def until(self, condition: Callable[[], bool], limit_s: float = 20.0) -> None:
        """Wait for a condition."""
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, f"it does not come; the log: {self._log.read_text()}"
            time.sleep(0.02)

    def end(self) -> None:
        """End it with all that it started, and remove its control groups."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
        end = time.monotonic() + 20.0
        while any(group.exists() for group in self._groups) and time.monotonic() < end:
            for group in self._groups:
                remove_group(group)
            time.sleep(0.01)
        assert not any(group.exists() for group in self._groups), "a control group is left"


@contextlib.contextmanager
def running(*, system: bool = False) -> Iterator[Systemd]:
    """Have a systemd for a while; its folder has a short name, because sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="bs-sd-"))
    made = Systemd(folder, system=system)
    try:
        made.start()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _hierarchies() -> list[Path]:
    """Find the hierarchies that systemd keeps its units in."""
    unified = cgroups.hierarchy(cgroups.NO_CONTROLLER)
    places = [GROUPS / "systemd", GROUPS / "unified"]
    found = [place for place in places if (place / "cgroup.procs").exists()]
    return found or ([unified.mount] if unified is not None and unified.version == 2 else [])


def remove_group(group: Path) -> None:
    """Kill whoever is in a group, and remove it with those below it."""
    for folder in [*sorted(group.rglob("*"), key=lambda path: -len(path.parts)), group]:
        if folder.is_dir():
            for pid in cgroups.members(folder):
                if (one := procs.stat(pid)) is not None:
                    procs.send(one, signal.SIGKILL)
            with contextlib.suppress(OSError):
                folder.rmdir()
