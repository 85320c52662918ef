"""`blackstart init`: a few questions, and a commented manifest that marks what a PASS still needs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from blackstart.cli.folder import write
from blackstart.errors import ManifestError
from blackstart.scenario.fields import NOT_SUGGESTED
from blackstart.target import manifest as manifests
from blackstart.target.problems import DOCUMENTS, ENVIRONMENTS, NAME
from blackstart.target.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

QUESTIONS = {
    "name": ("What is the system called?", "mysystem"),
    "environment": (f"Which environment is this? ({', '.join(ENVIRONMENTS)})", "test"),
    "command": (
        "Which command starts it, in the foreground?",
        "python3 -m http.server --bind 127.0.0.1 8080",
    ),
    "health": (
        "Which URL answers 200, or which HOST:PORT accepts, once it serves?",
        "http://127.0.0.1:8080/",
    ),
}

TEMPLATE = """\
# How Blackstart starts, watches and breaks "{name}". Every key: docs/reference/manifest.md.
# Check it:  blackstart validate --target {file}
# Break it:  blackstart run R25 --target {file}
schema = 1
name = {name_text}
environment = {environment_text} # sim, dev, test, staging run; production needs an approval
ready = "health" # the probe below says when all of it is ready
#: glue = {glue}
# ports = ["api"]                # a free port, anew for each trial: write {{port.api}} for {port} below

[processes.main] # what Blackstart starts in the run folder, {{run}}; beside this manifest: {{here}}/FILE
command = {command}
ready.{kind} = {health_text}
restart = "blackstart" # after a kill Blackstart, the operator, starts it again; "self": something else does
# state = ["{{run}}/data"]        # what a cold restart (R3) wipes

# A component may also be found by pid_file, or by url and select, or somebody runs it already:
# engine = {{ unit = "engine.service" }}, engine = {{ container = "engine" }} (without a process above).
[components] # what can be broken
main = {{ process = "main" }}

[groups] # what the standard scenarios break: R25 @each one by one, R2 @warm, R3 @cold, R1 @hot
each = ["main"]
warm = ["main"]
# cold = ["main"]                # needs `state` above

[probes.health] # asked every 2 ms; the time between two answers bounds how well an outage is known
{kind} = {health_text}
period_ms = 2.0

[services.orders] # the stream whose return ends the outage
source = "probe:health" # with the workload below take this line out: who accepts has not answered a write yet
#: source = "workload"
#: key = "id"

# What follows is what a PASS needs besides; `blackstart validate` says what is missing.
# Fill it in and remove each "#: ", also above.
# A workload keeps a ledger of acknowledged writes, so that Blackstart can say what was lost. Write a file
# {glue_file} with `async def connect(settings)`, `async def write(connection, record)` and
# `async def read(settings)`, and name it at the top of this file. Its acknowledged writes are the load, too:
# the answers of a probe are none.
#: [workload]
#: rate_per_s = 400.0
#: settings = {{ port = "{port}" }} # what the functions of the glue are given
#: [streams.writes]
#: acknowledged = "workload"
#: glue = "read"
#: key = "id"
#: content = ["value"]           # fields that must come back unchanged
#: ordered = "#"                 # `read` gives them in the order in which they were acknowledged; if there is
#                                # none, instead: unordered = "why"

# Each of these is UNKNOWN until it is described under [state.NAME] url = "…" (and judged by an [oracle]), or
# until you say here, for each on its own, why it makes no sense for this system.
#: [not_applicable]
{not_applicable}
"""


def init(file: Path, answers: Mapping[str, str | None], *, ask: bool) -> int:
    """Write the manifest and check it. Raises ManifestError rather than overwrite a file."""
    if file.exists():
        raise ManifestError(
            "is there already", where=str(file), hint="name another: blackstart init other.toml"
        )
    for key, answer in answers.items():
        if answer is not None:
            check(key, answer)
    given = {key: _answer(key, answers.get(key), ask=ask) for key in QUESTIONS}
    text = render(file, given)
    write(file, text.encode())
    try:
        manifests.load(file)
    except ManifestError:
        file.unlink()
        raise
    print(f"{file} is written.\n  \u2192 blackstart validate --target {file}")
    return 0


def check(key: str, answer: str) -> None:
    """See at once that an answer can be one. Raises ManifestError naming the question."""
    if key == "name" and not NAME.fullmatch(answer):
        what = f"`{answer}` cannot be part of a file name"
        raise ManifestError(what, where=key, hint="use letters, digits, `-`, `_`, `.`")
    if key == "environment" and answer not in ENVIRONMENTS:
        suggested = [name for name in ENVIRONMENTS if name not in NOT_SUGGESTED]
        raise ManifestError(f"`{answer}` is none{did_you_mean(answer, suggested)}", where=key)
    if key == "command":
        _command(answer)
    if key == "health":
        _kind(answer)


def _answer(key: str, given: str | None, *, ask: bool) -> str:
    """Return the answer given as an option, else the one on stdin, typed or piped, else the default."""
    question, default = QUESTIONS[key]
    if given is not None or not ask:
        return default if given is None else given
    if not sys.stdin.isatty():
        answer = sys.stdin.readline().strip() or default
        print(f"{question} {answer}")
        check(key, answer)
        return answer
    while True:
        answer = str(typer.prompt(question, default=default))
        try:
            check(key, answer)
        except ManifestError as error:
            print(error.render(), file=sys.stderr)
            continue
        return answer


def _kind(health: str) -> str:
    if health.startswith(("http://", "https://")):
        return "url"
    if not re.fullmatch(r"[^\s:]+:\d+", health):
        raise ManifestError(f"`{health}` is neither an URL nor HOST:PORT", where="health")
    return "tcp"


def render(file: Path, given: Mapping[str, str]) -> str:
    """Fill the template in. Raises ManifestError for answers that no manifest can hold."""
    command = _here(_command(given["command"]), file.parent)
    health = given["health"]
    glue = f"{re.sub(r'[^A-Za-z0-9_]', '_', given['name'])}_glue.py"
    return TEMPLATE.format(
        file=file,
        name=given["name"],
        name_text=quote(given["name"]),
        environment_text=quote(given["environment"]),
        command=f"[{', '.join(quote(part) for part in command)}]",
        glue=quote(glue),
        glue_file=glue,
        port=_port(health),
        kind=_kind(health),
        health_text=quote(health),
        not_applicable="\n".join(f'#: {name} = "why not"' for name in DOCUMENTS if name != "infrastructure"),
    )


def _here(command: list[str], folder: Path) -> list[str]:
    """Name the program's own file by the manifest's folder: the working folder is another, the run folder.

    It is the first part that is such a file; what comes later may be what the program writes.
    """
    for index, part in enumerate(command):
        bare = index == 0 and "/" not in part  # a program on PATH
        if not bare and not Path(part).is_absolute() and (folder / part).is_file():
            return [*command[:index], f"{{here}}/{Path(part)}", *command[index + 1 :]]
    return command


def _port(health: str) -> str:
    """Return the port that the health check names, or that its scheme implies."""
    _, _, place = health.rpartition("//")
    found = re.search(r":(\d+)$", place.partition("/")[0])
    return found.group(1) if found else "443" if health.startswith("https") else "80"


def _command(text: str) -> list[str]:
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise ManifestError(f"not a command line: {error}", where="command") from error
    if not parts:
        raise ManifestError("is empty", where="command", hint="give the command that starts the system")
    return parts


def quote(text: str) -> str:
    """Write a TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
