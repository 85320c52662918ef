"""Put in front of a command: asks the supervisor for which calls, filters itself, becomes the command.

    python -E -S seccomp_launch.py NAME TOKEN COMMAND…

Runs without `site`: its start-up is part of every start of the target.
"""

from __future__ import annotations

import json
import os
import socket
import sys

NOT_STARTED = 97  # as the launcher's: the command could not be executed; the reason is in the log


def main(arguments: list[str]) -> None:
    """Return only by exiting."""
    name, token, *command = arguments
    sys.path[:0] = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]  # noqa: PTH100,PTH120 - start time
    from blackstart.host import seccomp_filter  # noqa: PLC0415 - found only now

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.connect(f"\0{name}")
            link.send(json.dumps({"token": token, "expected": True}).encode())
            if calls := json.loads(link.recv(1 << 16) or "{}").get("expected"):
                listener = seccomp_filter.install(calls)
                request = json.dumps({"token": token, "listener": os.getpid()}).encode()
                socket.send_fds(link, [request], [listener])
                if not link.recv(1 << 12):
                    sys.exit(NOT_STARTED)
                os.close(listener)
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot execute {command[0]} under a seccomp supervisor: {error}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
