"""Undos on another host: over an `ssh` connection of the guardian's own, by the same helper, and seen there.

The helper of the trial takes everything back by itself when its connection ends; this proves it, and does it
where that helper was killed.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from blackstart.host import ssh

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.engine.verbs.verb import ByHand, Outcome, Verb, Verify

_LIMIT_S = 30.0


def _remote(arguments: Mapping[str, Any], _run: str) -> Verify:
    """Have the helper undo `values` where `command` leads."""
    import subprocess  # noqa: PLC0415 - the guardian starts quicker without, and mostly does without it

    try:
        process = subprocess.Popen(
            [str(word) for word in arguments["command"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        return lambda: (False, {"error": "there is no `ssh` program"})
    request = json.dumps({"do": "undo", "n": 1, **arguments["values"]}).encode()
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.write(ssh.bundle() + request + b"\n")  # a pipe holds that much
        process.stdin.close()
    process.stdin = None

    def verify() -> Outcome:
        try:
            out, said = process.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, said = process.communicate()
        answer = _answer(out)
        if answer is None:
            what, _ = ssh.explain(said.decode("utf-8", "replace"), process.returncode)
            return False, {"error": what}
        return answer.get("verified", False), answer.get("evidence") or {"error": answer.get("error")}

    return verify


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
