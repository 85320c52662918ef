"""Components that the glue finds, and what else a manifest can say of systems whose roles move."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest
from target_kit import Notes, manifest, rig, until

from blackstart.errors import TargetError
from blackstart.model.manifest import Component, EventSource, Match, Ready
from blackstart.model.record import SignalSeen
from blackstart.target.glue import Finder, load
from blackstart.target.problems import problems

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.model.manifest import Manifest

GLUE = """
import asyncio, os, time
async def by_name(settings): return "server"
async def by_pid(settings): return int(open(settings["run"] + "/pid").read())
async def nobody(settings): return None
async def broken(settings): raise OSError("no answer from the cluster")
async def blocking(settings): time.sleep(1); return 1
"""
SERVE = "import os,time; open('pid','w').write(str(os.getpid())); time.sleep(60)"


def described(folder: Path) -> Manifest:
    """Return a manifest with a process, and a component for each function of the glue."""
    (folder / "glue.py").write_text(GLUE)
    base = manifest(["{python}", "-c", SERVE], ready=Ready(file="{run}/pid"))
    roles = {name: Component(glue=name) for name in ("by_name", "by_pid", "nobody", "broken")}
    return msgspec.structs.replace(
        base, glue="glue.py", folder=str(folder), components={**base.components, **roles}
    )


def test_a_command_line_finds_exactly_one(tmp_path: Path) -> None:
    """The process itself, not the spare that waits to become the next; none, where none matches, is told."""
    marked = f"{SERVE}  # {tmp_path}"
    base = manifest(["{python}", "-c", marked], ready=Ready(file="{run}/pid"))
    ways = {
        "one": Component(match=f"# {tmp_path}$"),
        "none": Component(match=f"# {tmp_path}/nobody$"),
    }
    found = msgspec.structs.replace(base, components={**base.components, **ways})

    async def run() -> None:
        async with rig(found, tmp_path / "run") as (made, _):
            assert await made.target.process("one") == await made.target.process("main")
            with pytest.raises(TargetError, match="matches 0 processes, not one"):
                await made.target.process("none")

    asyncio.run(run())


def test_the_glue_finds_who_has_a_role(tmp_path: Path) -> None:
    """By name or by pid, it is the process that was started here; what is no answer is told."""

    async def run() -> None:
        async with rig(described(tmp_path), tmp_path / "run") as (made, _):
            main = await made.target.process("main")
            assert await made.target.process("by_name") == main
            assert await made.target.process("by_pid") == main
            assert made.target.started_as(main) == "server"
            with pytest.raises(TargetError, match="returned None, neither a pid nor a process"):
                await made.target.process("nobody")
            with pytest.raises(TargetError, match="no answer from the cluster"):
                await made.target.process("broken")
            os.kill(main.pid, signal.SIGKILL)
            await until(made.target.operator._children["server"].exited.is_set)
            with pytest.raises(TargetError, match="is not running"):
                await made.target.process("by_pid")

    asyncio.run(run())


def test_a_glue_that_blocks_does_not_hold_up_the_trial(tmp_path: Path) -> None:
    """While the glue's function blocks its thread, our own loop runs on."""
    (tmp_path / "glue.py").write_text(GLUE)
    finder, beats = Finder(load(tmp_path / "glue.py")), 0

    async def run() -> int:
        nonlocal beats
        asking = asyncio.create_task(finder.ask("blocking", {}))
        while not asking.done():
            beats += 1
            await asyncio.sleep(0.01)
        answer: int = asking.result()
        return answer

    assert asyncio.run(run()) == 1
    assert beats > 20


def test_mistakes_about_roles_and_logs_are_named(tmp_path: Path) -> None:
    """A function that the glue lacks, two ways to find one component, a pattern without an event."""
    spoiled = msgspec.structs.replace(
        described(tmp_path),
        components={"a": Component(glue="absent"), "b": Component(glue="by_pid", process="server")},
        events={"log": EventSource(files="*.log", lines="ready")},
    )
    found = "\n".join(problems(spoiled))
    assert "glue: glue.py has no `async def absent(…)`" in found
    ways = "process, pid_file, match, url, glue, unit, container"
    assert f"components.b: give exactly one of {ways} (process, glue given)" in found
    assert "events.log.lines: needs a group called event" in found


def test_a_number_in_the_environment_is_text(tmp_path: Path) -> None:
    """An environment variable that is a port and nothing else reaches the process."""
    shown = "import os,time; open('pid','w').write(os.environ['PORT']); time.sleep(60)"
    base = manifest(
        ["{python}", "-c", shown], ready=Ready(file="{run}/pid"), environment={"PORT": "{port.x}"}
    )

    async def run() -> None:
        async with rig(msgspec.structs.replace(base, ports=("x",)), tmp_path) as (made, _):
            await until(lambda: (tmp_path / "pid").read_text() == str(made.target.values["port"]["x"]))

    asyncio.run(run())


def test_any_log_can_tell_events(tmp_path: Path) -> None:
    """A line that fits becomes an event with its fields, stamped when it reached us; no other does."""
    source = EventSource(files="{run}/app.log", lines=r"# (?P<event>\+\w+) (?P<who>\w+)")
    base = manifest(["sleep", "60"])
    told = msgspec.structs.replace(base, events={"app": source}, phases={"recovered": (Match(event="+up"),)})

    async def write(notes: Notes) -> None:
        while not notes.of(SignalSeen):  # watching may begin after the first lines
            with (tmp_path / "app.log").open("a") as log:
                log.write("12:00 * +no\n12:00 # +up main 127.0.0.1\n")
            await asyncio.sleep(0.02)

    async def run() -> None:
        async with rig(told, tmp_path) as (made, notes):
            watching = asyncio.create_task(made.watch([], []))
            async with asyncio.timeout(20):
                await write(notes)
            watching.cancel()
            await asyncio.wait([watching])
            seen = notes.of(SignalSeen)[0]
            assert (seen.source, seen.event, seen.fields) == ("app", "+up", {"who": "main"})
            assert 0 < seen.mono_ns <= seen.seen_mono_ns
            assert seen.uncertainty_ns > 0

    asyncio.run(run())
