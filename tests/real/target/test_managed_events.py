"""Events out of a real journal and a real engine's log, with the stamps they were given there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker_kit
import msgspec
import pytest
import systemd_kit
from managed_kit import described
from target_kit import Clock, Notes, rig, until

from blackstart.model.manifest import EventSource
from blackstart.model.record import Problem, SignalSeen
from blackstart.target.managed_events import RECEIVED_NS, ContainerLines, JournalLines

if TYPE_CHECKING:
    from collections.abc import Iterator

# Says everything in three ways; the moment at which it was said is in it.
PROGRAM = """
import json, sys, time
n = 0
while True:
    n += 1
    print(json.dumps({"event": "own", "mono_ns": time.monotonic_ns(), "n": n}))
    print(json.dumps({"event": "bare", "said": time.monotonic_ns(), "n": n}), flush=True)
    print(f"plain event-{n} said {time.monotonic_ns()}", file=sys.stderr, flush=True)
    time.sleep(0.05)
"""
LINES = r"plain (?P<event>event)-(?P<n>\d+) said (?P<said>\d+)"


@pytest.fixture(params=["unit", "container"])
def talking(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Have a program that talks, as a unit and as a container: its component, its events, and its killing."""
    kit: Any = systemd_kit if request.param == "unit" else docker_kit
    if (why := kit.missing()) is not None:
        pytest.skip(why)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with kit.running() as made:
        for key, text in made.environment.items():
            monkeypatch.setenv(key, text)
        if request.param == "unit":
            made.service("talker", f"/usr/bin/python3 {program}", Restart="always", RestartSec="50ms")
            yield made, {"unit": "talker.service", "manager": "user"}
        else:
            again = ("--restart", "always", "-v", f"{tmp_path}:{tmp_path}:ro")
            made.run("talker", "/usr/bin/python3", str(program), options=again)
            yield made, {"container": "talker"}


def test_every_line_has_the_stamp_of_its_receipt(talking: Any, tmp_path: Path) -> None:
    """Not of its arrival here, which is later; what a program stamps itself is believed to the nanosecond."""
    made, component = talking

    async def run() -> Notes:
        manifest = msgspec.structs.replace(
            described(main=component),
            events={"json": EventSource(**component), "log": EventSource(**component, lines=LINES)},
        )
        async with rig(manifest, tmp_path / "run") as (target, notes):
            watching = asyncio.ensure_future(target.watch([], []))
            await until(lambda: len(notes.of(SignalSeen)) > 20)
            made.kill("talker")
            killed = time.monotonic_ns()
            # The same words again, from the next process.
            await until(
                lambda: [one for one in of(notes, "own") if one.fields["n"] == 1 and one.mono_ns > killed]
            )
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            return notes

    notes = asyncio.run(run())
    assert not notes.of(Problem)
    assert all(one.uncertainty_ns == 0 for one in of(notes, "own"))
    for one in [*of(notes, "bare"), *of(notes, "event")]:
        late_ns = one.mono_ns - int(one.fields["said"])
        assert one.uncertainty_ns == RECEIVED_NS
        assert -1_000_000 < late_ns < one.seen_mono_ns - int(one.fields["said"])
    told = [int(one.fields["n"]) for one in of(notes, "own")]
    again = told.index(1) if told[0] != 1 else told.index(1, 1)
    for part in (told[:again], told[again:]):  # nothing was lost, and nothing came twice
        assert part == list(range(part[0], part[0] + len(part)))
    assert {one.source for one in of(notes, "event")} == {"log"}


def of(notes: Notes, event: str) -> list[SignalSeen]:
    """Return what was seen of an event, in the order of arrival."""
    return [one for one in notes.of(SignalSeen) if one.event == event]


def test_a_journal_that_cannot_be_followed_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes silence for calm: the trial hears that its watcher has ended, and why."""
    program = tmp_path / "journalctl"
    program.write_text("#!/bin/sh\necho 'No journal files were opened' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    async def run() -> Notes:
        manifest = msgspec.structs.replace(described(), events={"log": EventSource(unit="a.service")})
        async with rig(manifest, tmp_path / "run") as (target, notes):
            watching = asyncio.ensure_future(target.watch([], []))
            await until(lambda: notes.of(Problem))
            watching.cancel()
            return notes

    (problem,) = asyncio.run(run()).of(Problem)
    assert problem.code == "watch-failed"
    assert "cannot be followed: No journal files were opened" in problem.text


@pytest.mark.parametrize(("boot", "own"), [("", False), (None, True)])
def test_a_stamp_of_another_boot_is_not_believed(tmp_path: Path, boot: str | None, own: bool) -> None:
    """The monotonic clock starts anew with each boot."""

    async def nobody(_: object) -> Any:
        raise AssertionError

    spec = EventSource(unit="a.service")
    lines = JournalLines("log", spec, tmp_path / "log", nobody, Clock())
    here = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    entry = {"MESSAGE": list(b'{"event": "x"}'), "_BOOT_ID": here if boot is None else boot}
    found = lines.observation(json.dumps({**entry, "__MONOTONIC_TIMESTAMP": "77"}).encode())
    assert found is not None
    assert (found.mono_ns == 77_000) == own


def test_the_stamps_of_two_outputs_ascend_each_for_itself() -> None:
    """What is stamped first may be written second: a line of the other output does not make it an old one."""
    lines = ContainerLines("log", EventSource(container="a"), Clock())
    stamp = lambda second: f'2100-01-01T00:00:{second:02d}Z {{"event": "x"}}'.encode()  # noqa: E731
    assert lines.observation(stamp(2), 2) is not None
    assert lines.observation(stamp(1), 1) is not None
    assert lines.observation(stamp(1), 1) is None  # read before, as after a new beginning of the stream
    assert lines.observation(stamp(2), 2) is None
