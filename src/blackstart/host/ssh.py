"""How another host is reached: one `ssh` command that starts the helper there, and what its errors mean.

Standard library only: the guardian's undo goes the same way. The helper (`host.ssh_helper`) travels over the
connection's own input and is compiled in memory there: no file is written.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONNECT_LIMIT_S = 10
_NO_SUCH_COMMAND = 127
_MODULES = ("procs", "growing", "ssh_helper")

# One line that any shell takes: it carries out the first line of its input, which is LOADER.
_FIRST = 'i=open(0,"rb",0,closefd=False);exec(i.readline())'

LOADER = """
import json, sys, types
if sys.version_info < (3, 9):
    sys.exit("it has Python " + sys.version.split()[0] + ", and the helper needs 3.9 or newer")
def take(left):
    data = b""
    while len(data) < left:
        more = i.read(left - len(data))
        if not more:
            sys.exit("the connection ended before the helper was there")
        data += more
    return data
for name, text in json.loads(take(int(i.readline()))):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""

OURS = {
    "BatchMode": "yes",  # nobody is there to answer questions
    "ConnectTimeout": str(CONNECT_LIMIT_S),
    "ServerAliveInterval": "2",
    "ServerAliveCountMax": "3",
    "ControlMaster": "no",  # a connection of our own: its end must be the helper's end
    "ControlPath": "none",
    "ClearAllForwardings": "yes",
    "EscapeChar": "none",
    "LogLevel": "ERROR",
}
"""Options of every connection. What a manifest says comes first, and `ssh` takes the first it hears."""

# What `ssh` says, and what to do about it.
_HINTS = (
    ("host key verification failed", "its key is not the one that is known, or none is known: look why"),
    ("remote host identification has changed", "its key is not the one that is known: look why"),
    ("permission denied", "is the identity file right, and does the user's authorized_keys hold its key?"),
    ("could not resolve", "is the address right?"),
    ("connection refused", "is sshd running there, on that port?"),
    ("timed out", "can the host be reached from here?"),
    ("no route to host", "can the host be reached from here?"),
    ("identity file", "is the path of the identity file right?"),
    ("not found", "which Python is there? say `python` in the host's entry"),
    ("no such file", "which Python is there? say `python` in the host's entry"),
    ("helper needs", "say in `python` where a newer one is"),
)


def command(
    *,
    address: str,
    port: int = 22,
    user: str | None = None,
    identity: str | None = None,
    python: str = "python3",
    options: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the command that connects and starts the loader there; the last word is what runs there."""
    settings = {**(options or {}), **{key: text for key, text in OURS.items() if key not in (options or {})}}
    words = ["ssh", "-T", "-x", "-a", "-p", str(port)]
    words += ["-i", identity, "-o", "IdentitiesOnly=yes"] if identity is not None else []
    words += ["-l", user] if user is not None else []
    for key, text in settings.items():
        words += ["-o", f"{key}={text}"]
    # -I -S: nothing of that host's packages and variables; -B: no compiled files are written.
    return [*words, "--", address, f"exec {shlex.quote(python)} -ISB -c {shlex.quote(_FIRST)}"]


def there(ssh: Iterable[str], words: Iterable[str]) -> str:
    """Return the line with which an operator runs `words` on the host that `ssh` (a `command`) reaches."""
    return shlex.join([*list(ssh)[:-1], shlex.join(words)])


def bundle() -> bytes:
    """Return what goes over first: the loader, and the helper with the two modules that it needs."""
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100,PTH120 - start time
    modules = [("blackstart", ""), ("blackstart.host", "")]
    for name in _MODULES:
        with open(os.path.join(folder, f"{name}.py"), encoding="utf-8") as file:  # noqa: PTH118,PTH123 - see above
            modules.append((f"blackstart.host.{name}", file.read()))
    text = json.dumps(modules).encode()
    return f"exec({LOADER!r})\n{len(text)}\n".encode() + text


def explain(said: str, status: int | None) -> tuple[str, str]:
    """Return what went wrong with a connection, and what to do, from what `ssh` said at its end."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    low = said.lower()
    hint = next((hint for sign, hint in _HINTS if sign in low), "")
    what = next((line for line in reversed(lines) if any(sign in line.lower() for sign, _ in _HINTS)), "")
    what = what or (lines[-1] if lines else "the connection ended without a word")
    if status == _NO_SUCH_COMMAND:
        hint = "which Python is there? say `python` in the host's entry"
    return what, hint
