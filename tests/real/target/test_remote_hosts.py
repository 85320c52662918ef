"""Components of another host are started only where they certainly do not run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from target_kit import Clock, Notes

from blackstart.errors import AbsentError, TargetError
from blackstart.host import ssh
from blackstart.model.manifest import Component, Host, Manifest
from blackstart.target.hosts import Hosts
from blackstart.target.remote import Link

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

HELPER = ssh.command(address="x", python=sys.executable)[-1]


def trial(component: Component, folder: Path, do: Callable[[Hosts], Awaitable[None]]) -> Notes:
    """Do something with a component of "another host", whose helper is reached without `ssh`."""
    hosts = {"there": Host(address="x")}
    described = Manifest(
        schema=1, name="t", environment="test", hosts=hosts, components={"engine": component}
    )
    notes = Notes()

    async def no_url(_name: str, _spec: Component) -> int:
        raise TargetError("does not answer")

    async def run() -> None:
        there = Hosts(
            described,
            lambda text, _where: text,
            no_url,
            run=folder,
            clock=Clock(),
            sink=notes.records.append,
            protect=notes.protect,
        )
        link = there.links["there"] = Link("there", ["sh", "-c", HELPER], Clock())
        await link.open(notes.protect)
        try:
            await do(there)
        finally:
            await there.close()

    asyncio.run(run())
    return notes


@pytest.mark.parametrize("unclear", ["two match", "empty pid file"])
@pytest.mark.parametrize("how", ["bring up", "start"])
def test_nothing_is_started_while_nobody_can_tell(tmp_path: Path, unclear: str, how: str) -> None:
    """A trial does not open, and an operator does not start again: the reason is told instead."""
    pid_file, start = tmp_path / "pid", ("touch", str(tmp_path / "started"))
    pid_file.touch()
    both = [subprocess.Popen(("sleep", "302.25")) for _ in range(2)]
    found = {"match": r"^sleep 302\.25$"} if unclear == "two match" else {"pid_file": str(pid_file)}
    said = "matches 2 processes" if unclear == "two match" else "no pid in"

    async def do(there: Hosts) -> None:
        with pytest.raises(TargetError, match=said) as caught:
            await (there.bring_up() if how == "bring up" else there.start("engine"))
        assert not isinstance(caught.value, AbsentError)

    try:
        notes = trial(Component(host="there", start=start, **found), tmp_path, do)  # type: ignore[arg-type]
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert not (tmp_path / "started").exists()
    assert not [one for one in notes.undos if one.action == "remote"], "nothing is owed there"


def test_one_that_certainly_does_not_run_is_started(tmp_path: Path) -> None:
    """And ended with the trial."""
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; exec sleep 300"
    component = Component(host="there", pid_file=str(pid_file), start=("sh", "-c", script))
    notes = trial(component, tmp_path, Hosts.bring_up)
    assert [one.what for one in notes.seen_all()][:2] == ["starting", "started"]
    assert any("end:engine" in one.id for one in notes.undos)


def test_one_that_is_absent_and_cannot_be_started_is_told(tmp_path: Path) -> None:
    """Who waits for it knows that it does not run."""

    async def do(there: Hosts) -> None:
        with pytest.raises(AbsentError, match=r"components\.engine: there is no"):
            await there.bring_up()

    trial(Component(host="there", pid_file=str(tmp_path / "none")), tmp_path, do)
