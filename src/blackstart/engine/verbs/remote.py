"""Undos on another host: over an `ssh` connection of the guardian's own, by the same helper, and seen there.

The helper of the trial takes everything back by itself when its connection ends; this proves it, and does it
where that helper was killed.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from blackstart.host import ssh

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify

_LIMIT_S = 20.0
"""For all of it: who asked the guardian takes one that is silent for longer than 30 s for lost."""

_TRYING_S = 6.0
_AGAIN_S = 0.5
"""A server may turn connections away when many come at once (MaxStartups): try again for a while."""


def _remote(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Have the helper undo `values` where `command` leads."""
    command = [str(word) for word in arguments["command"]]
    request = json.dumps({"do": "undo", "n": 1, **arguments["values"]}).encode() + b"\n"
    since_s = time.monotonic()
    begun = _connect(command, request)

    def verify() -> Outcome:
        asked = begun
        while True:
            answer, why = _hear(asked, since_s + _LIMIT_S)
            if answer is not None:
                return answer.get("verified", False), answer.get("evidence") or {"error": answer.get("error")}
            if time.monotonic() > since_s + _TRYING_S:
                return False, {"error": why}
            time.sleep(_AGAIN_S)
            asked = _connect(command, request)

    return verify


def _connect(command: list[str], request: bytes) -> subprocess.Popen[bytes] | None:
    """Start `ssh` and say everything at once: a pipe holds that much. None where there is no such program."""
    import subprocess  # noqa: PLC0415 - the guardian starts quicker without, and mostly does without it

    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except FileNotFoundError:
        return None
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.write(ssh.bundle() + request)
        process.stdin.close()
    process.stdin = None
    return process


def _hear(process: subprocess.Popen[bytes] | None, until_s: float) -> tuple[dict[str, Any] | None, str]:
    """Wait for the answer until that moment; without one, say why."""
    import subprocess  # noqa: PLC0415 - see above

    if process is None:
        return None, "there is no `ssh` program"
    try:
        out, said = process.communicate(timeout=max(0.0, until_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        out, said = process.communicate()
    what, _ = ssh.explain(said.decode("utf-8", "replace"), process.returncode)
    return _answer(out), what


def _answer(out: bytes) -> dict[str, Any] | None:
    """Return the one answer among the lines; a shell may have greeted before."""
    for line in out.splitlines():
        if line.startswith(b'{"n": 1'):
            found: dict[str, Any] = json.loads(line)
            return found
    return None


BY_HAND: dict[str, ByHand] = {
    "remote": lambda arguments: ssh.there(arguments["command"], arguments["by_hand"]),
}
VERBS: dict[str, Verb] = {"remote": _remote}
