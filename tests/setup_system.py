"""Install what some tests use and pip cannot give: a browser, strace, an SSH server; unpack a docker engine.

Best effort; what is missing is said, here and by the skipped tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Program, and the package that brings it.
PROGRAMS = {
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "strace": "strace",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
}
POLICY = "/usr/sbin/policy-rc.d"
FORBIDDEN = 101
LIMIT_S = 600
# The engine is not installed but unpacked (65 MB, some seconds): installed it would be started, and change
# the host's network.
ENGINE_PACKAGES = ("docker.io", "containerd", "runc")
ENGINE = ("dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker")
UNPACKED = Path("/var/cache/blackstart-tests/docker")


def missing() -> list[str]:
    """List the programs that are not there."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def starts_servers() -> bool:
    """Whether this system would start a server that is installed; containers usually forbid it."""
    if not os.access(POLICY, os.X_OK):
        return True
    done = subprocess.run((POLICY, "ssh", "start"), capture_output=True, check=False, timeout=LIMIT_S)
    return done.returncode != FORBIDDEN


def say(text: str) -> None:
    """One line, at once."""
    print(f"tests: {text}", flush=True)


def apt(*arguments: str, folder: Path | None = None) -> bool:
    """Run apt-get without questions; whether it worked."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False, timeout=LIMIT_S, cwd=folder
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"apt-get {arguments[0]}: {error}")
        return False
    return done.returncode == 0


def engine_missing() -> bool:
    """Say whether a program of the docker engine is neither on the path nor unpacked."""
    path = f"{UNPACKED}:{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    return any(shutil.which(name, path=path) is None for name in ENGINE)


def unpack_engine() -> bool:
    """Take the engine's programs out of their packages; whether they are all there then."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o777)  # apt downloads as a user of its own
        if not apt("download", *ENGINE_PACKAGES, folder=folder):
            return False
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", str(package), scratch], check=False)
        UNPACKED.mkdir(parents=True, exist_ok=True)
        for name in ENGINE:
            for found in (*folder.glob(f"usr/bin/{name}"), *folder.glob(f"usr/sbin/{name}")):
                shutil.copy2(found, UNPACKED / name)
    return not engine_missing()


def main() -> None:
    """Install it where that is possible; never fail."""
    may = os.geteuid() == 0 and shutil.which("apt-get") is not None
    if may and engine_missing():
        say("unpacking a docker engine …")
        if not unpack_engine() and not (apt("update") and unpack_engine()):
            say("no docker engine could be unpacked; tests that use it will be skipped")
    absent = missing()
    packages = [PROGRAMS[name] for name in absent]
    if not absent:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"no {', '.join(absent)}: tests that use it will be skipped (packages: {' '.join(packages)})")
        return
    if "sshd" in absent and starts_servers():
        packages.remove(PROGRAMS["sshd"])
        say("no sshd: installing openssh-server would open port 22 here, so it is left to you; tests skip it")
    if not packages:
        return
    say(f"installing {', '.join(packages)} …")
    worked = apt("update") and apt("install", "--yes", "--no-install-recommends", *packages)
    if not worked:
        say(f"no {', '.join(missing())} could be installed; tests that use it will be skipped")


if __name__ == "__main__":
    sys.exit(main())
