"""`blackstart up`, `down` and `snapshot`: a target kept running outside any trial."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from blackstart.cli.folder import made, write
from blackstart.cli.keeper import FAILED, UP, Up
from blackstart.engine import leftovers, permit
from blackstart.errors import TargetError
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from pathlib import Path

START_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0
READ_LIMIT_S = 30.0
POLL_S = 0.02


def up(target: str, *, out: Path, seed: int, again: bool = False) -> int:
    """Start a keeper for the target; return once it is up.

    Raises TargetError with what kept it down, and where it is up already unless `again` is wished.
    """
    manifest = manifests.load(target)
    permit.check(manifest)
    leftovers.clear(made(out))
    there = [one.folder for one in running(out) if one.target == manifest.name]
    if there and not again:
        hint = "`blackstart down` first, or `up --again` for one more beside it"
        raise TargetError(f"{manifest.name} is up already", where=", ".join(there), hint=hint)
    folder = out / f"up-{manifest.name}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    keeper = _spawn(folder, str(manifests.find(target)), seed)
    _await_up(folder, keeper)
    print(f"{manifest.title or manifest.name} is up: {folder}")
    print("  \u2192 blackstart snapshot before.json; blackstart down")
    return 0


def _spawn(folder: Path, target: str, seed: int) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", "blackstart.cli.keeper", str(folder.resolve()), target, str(seed))
    with (folder / "keeper.log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _await_up(folder: Path, keeper: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_LIMIT_S
    try:
        while not (folder / UP).exists():
            if keeper.poll() is not None:
                raise TargetError(_why(folder), where=str(folder), hint="see keeper.log and logs/ there")
            if time.monotonic() > end:
                keeper.terminate()
                raise TargetError(f"not up within {START_LIMIT_S:.0f} s", where=str(folder))
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        keeper.terminate()
        keeper.wait()
        raise


def _why(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / FAILED).read_text(encoding="utf-8")
    return "the keeper ended at once"


def running(out: Path) -> list[Up]:
    """Return the targets below `out` that are up; what a dead keeper announced does not count."""
    found = [msgspec.json.decode(path.read_bytes(), type=Up) for path in sorted(out.glob(f"*/{UP}"))]
    return [one for one in found if _alive(one)]


def _alive(one: Up) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        _connect(probe, one)
        return True
    return False


def _connect(link: socket.socket, one: Up) -> None:
    """Connect by a relative path: an absolute one may not fit."""
    link.connect(os.path.relpath(one.socket))


def _choose(folder: Path | None, out: Path) -> list[Up]:
    if folder is None:
        return running(out)
    return [one for one in running(folder.parent) if folder.samefile(one.folder)]


def down(folder: Path | None, *, out: Path, everything: bool = False) -> int:
    """Stop what is up. Status 2 when something does not end.

    Raises TargetError when several are up and none is named.
    """
    ups = _choose(folder, out)
    if len(ups) > 1 and not everything:
        folders = "\n    ".join(one.folder for one in ups)
        hint = f"name one, or give --all:\n    {folders}"
        raise TargetError(f"{len(ups)} targets are up", where=str(out), hint=hint)
    if not ups:
        print(f"nothing is up below {folder or out}")
    return max([_stop(one) for one in ups], default=0)


def _stop(one: Up) -> int:
    descriptor = os.pidfd_open(one.pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        end = time.monotonic() + STOP_LIMIT_S
        while _alive(one) or not _ended(one.pid):
            if time.monotonic() > end:
                print(f"{one.folder}: pid {one.pid} does not end; try `blackstart halt`", file=sys.stderr)
                return 2
            time.sleep(POLL_S)
    finally:
        os.close(descriptor)
    print(f"{one.title} is down: {one.folder}")
    return 0


def _ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has collected yet."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  # no Path at run time needed
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True


def snapshot(file: Path | None, *, folder: Path | None, out: Path) -> int:
    """Write the state of the one target that is up. Raises TargetError when there is none, or several."""
    ups = _choose(folder, out)
    if len(ups) != 1:
        what = "no target is up" if not ups else "several targets are up"
        hint = "`blackstart up` first" if not ups else f"--of {' or --of '.join(one.folder for one in ups)}"
        raise TargetError(what, where=str(folder or out), hint=hint)
    document = msgspec.json.format(_ask(ups[0], "snapshot")) + b"\n"
    if file is None:
        sys.stdout.buffer.write(document)
    else:
        write(file, document)
    errors = msgspec.json.decode(document)["errors"]
    for place, error in errors.items():
        print(f"{place}: {error}", file=sys.stderr)
    return 2 if errors else 0


def _ask(one: Up, word: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(READ_LIMIT_S)
        try:
            _connect(link, one)
            link.sendall(word.encode() + b"\n")
            return b"".join(iter(lambda: link.recv(1 << 16), b""))
        except OSError as error:
            raise TargetError(f"its keeper does not answer: {error}", where=one.folder) from error
