"""Install what some tests use and pip cannot give: a browser, strace.

Best effort; what is missing is said, here and by the skipped tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PACKAGES = ("chromium", "chromium-driver", "strace")
PROGRAMS = ("chromium", "chromedriver", "strace")
LIMIT_S = 600


def missing() -> list[str]:
    """List the programs that are not on the path."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def say(text: str) -> None:
    """One line, at once."""
    print(f"tests: {text}", flush=True)


def apt(*arguments: str) -> bool:
    """Run apt-get without questions; whether it worked."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"apt-get {arguments[0]}: {error}")
        return False
    return done.returncode == 0


def main() -> None:
    """Install it where that is possible; never fail."""
    if not missing():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"no {', '.join(missing())}: tests that use it will be skipped (packages: {' '.join(PACKAGES)})")
        return
    say(f"installing {', '.join(missing())} …")
    worked = apt("update") and apt("install", "--yes", "--no-install-recommends", *PACKAGES)
    if not worked or missing():
        say(f"no {', '.join(missing())} could be installed; tests that use it will be skipped")


if __name__ == "__main__":
    sys.exit(main())
