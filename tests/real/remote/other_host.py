"""Another host for tests: a real sshd on a loopback port.

As root it runs in namespaces of its own, with pids and a monotonic clock that are not this host's: whoever
mistakes the ones for the others is found out. As an ordinary user it shares both.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

AHEAD_S = 5000
_APART = ("unshare", "-T", "--monotonic", str(AHEAD_S), "-p", "-f", "--kill-child", "-m", "--mount-proc")
_OWN_RUN = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "

SERVICE = Path(__file__).with_name("small") / "service.py"

MANIFEST = """\
schema = 1
name = "remote"
environment = "test"
glue = "{glue}"
ports = ["lines"]
not_applicable = {{ "*" = "not a trading system" }}

[hosts.there]
address = "127.0.0.1"
port = {port}
identity = "{identity}"
options = {{ UserKnownHostsFile = "{known}" }}
python = "{python}"

[components.lines]
host = "there"
{found}
start = ["{python}", "{service}", "{{port.lines}}", "{folder}"{mode}]
ready = {{ tcp = "127.0.0.1:{{port.lines}}" }}
{restart}

[workload]
rate_per_s = 200.0
settings = {{ port = "{{port.lines}}" }}

[services.orders]
source = "workload"
key = "id"

[probes.port]
tcp = "127.0.0.1:{{port.lines}}"

[events.log]
host = "there"
files = "{folder}/events.jsonl"

[phases]
responded = [{{ event = "starting" }}]
recovered = [{{ event = "serving" }}]

[streams.lines]
acknowledged = "workload"
glue = "read"
key = "id"
"""

SCENARIO = """\
id = "REMOTE"
title = "a component of another host is broken"
requirement = "R25"
standard = false

[fault]
kind = "{kind}"
components = ["lines"]
{more}

[objectives]
rto_ms = 20_000

[load]
minimum_per_s = 50

[observe]
limit_s = 20
"""


def why_not() -> str | None:
    """Say why there can be no other host here, or None."""
    absent = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install openssh-client"
    if sshd() is None:
        return "no sshd: apt-get install openssh-server"
    return None


def sshd() -> str | None:
    """Find the server, which is not on an ordinary user's path."""
    return shutil.which(
        "sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )


class OtherHost:
    """A running sshd, and what a manifest says of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.apart = folder, os.geteuid() == 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        for name in ("host_key", "user_key"):
            self._keygen(folder / name)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        self.know(folder / "host_key.pub")
        (folder / "config").write_text(self._config())
        self.process = self._start()

    def know(self, key: Path) -> None:
        """Take a key for that of the host."""
        kind, text = key.read_text().split()[:2]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {text}\n")

    def another_key(self) -> Path:
        """Make a key that is not the host's."""
        if not (self.folder / "other_key").exists():
            self._keygen(self.folder / "other_key")
        return self.folder / "other_key.pub"

    def run(self, command: str) -> str:
        """Run a command there, as its operator would."""
        ssh = (
            *("ssh", "-T", "-p", str(self.port), "-i", str(self.folder / "user_key")),
            *("-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "BatchMode=yes", "127.0.0.1"),
        )
        done = subprocess.run((*ssh, command), capture_output=True, text=True, check=False, timeout=30)
        return done.stdout

    def state(self, pid: int) -> str:
        """Return the kernel's letter for a process there; empty when it is gone."""
        return self.run(f"ps -o state= -p {pid}").strip().replace("Z", "")

    def sessions(self) -> list[int]:
        """Return the pids, on this host, of the servers of single connections."""
        found = subprocess.run(
            ("pgrep", "-f", "^sshd: .*@notty"), capture_output=True, text=True, check=False
        )
        ours = set(self._descendants(self.process.pid))
        return [int(pid) for pid in found.stdout.split() if int(pid) in ours]

    def strangers(self) -> list[str]:
        """Return the command lines of all processes there that are no part of sshd."""
        if not self.apart:
            return []
        lines = self.run("ps -eo args=").splitlines()
        return [one for one in lines if "sshd" not in one and "ps -eo" not in one]

    def close(self) -> None:
        """End it and whatever runs there."""
        for pid in [*self._descendants(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def manifest(
        self,
        folder: Path,
        *,
        mode: str = "",
        found: str | None = None,
        restart: str = "",
        python: str = sys.executable,
        identity: Path | None = None,
    ) -> Path:
        """Write a manifest for the small service on this host, its files in `folder`."""
        folder.mkdir(exist_ok=True)
        text = MANIFEST.format(
            glue=SERVICE.with_name("remote_glue.py"),
            port=self.port,
            identity=identity or self.folder / "user_key",
            known=self.folder / "known_hosts",
            python=python,
            found=found or f'pid_file = "{folder}/pid"',
            service=SERVICE,
            folder=folder,
            mode=f', "{mode}"' if mode else "",
            restart=restart,
        )
        path = folder / "remote.toml"
        path.write_text(text)
        return path

    def scenario(self, folder: Path, kind: str, more: str = "") -> Path:
        """Write a scenario that breaks the service."""
        path = folder / f"{kind}.toml"
        path.write_text(SCENARIO.format(kind=kind, more=more))
        return path

    def _keygen(self, path: Path) -> None:
        subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path), check=True, timeout=30)

    def _config(self) -> str:
        return "\n".join(
            (
                f"Port {self.port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {self.folder}/host_key",
                f"AuthorizedKeysFile {self.folder}/authorized_keys",
                f"PidFile {self.folder}/sshd.pid",
                "StrictModes no",
                # Only root reads /etc/shadow; who cannot has PAM say that the account is good.
                f"UsePAM {'no' if self.apart else 'yes'}",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "PermitRootLogin prohibit-password",
                "MaxStartups 100",
                "",
            )
        )

    def _start(self) -> subprocess.Popen[bytes]:
        server = f"{sshd()} -D -e -f {self.folder}/config"
        command = (*_APART, "sh", "-c", _OWN_RUN + server) if self.apart else server.split()
        with (self.folder / "sshd.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError((self.folder / "sshd.log").read_text())
            time.sleep(0.02)
        return process

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _descendants(self, pid: int) -> list[int]:
        found = subprocess.run(("pgrep", "-P", str(pid)), capture_output=True, text=True, check=False)
        children = [int(one) for one in found.stdout.split()]
        return [*children, *(one for child in children for one in self._descendants(child))]
