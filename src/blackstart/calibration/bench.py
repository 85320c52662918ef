"""Runs the calibration target under the rig, records and checker of any trial; compares with its truth."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import blackstart
from blackstart.calibration.program import Truth
from blackstart.calibration.result import Outage
from blackstart.check import rto
from blackstart.check.facts import Facts
from blackstart.engine import guard
from blackstart.engine.clocks import SystemClock
from blackstart.faults.death import Deathbed
from blackstart.history.view import History
from blackstart.model.fault import Receipt
from blackstart.model.instant import StampName
from blackstart.model.record import (
    Header,
    Injected,
    ProcessSeen,
    Record,
    ServiceBatch,
    ServiceWatched,
    SignalSeen,
    StageReached,
)
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario, Steady
from blackstart.target import manifest as manifests
from blackstart.target import rig as rigs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from blackstart.model.manifest import Manifest
    from blackstart.model.outcome import Rto

SHORTEST_NS, LONGEST_NS = 5_000_000, 500_000_000
WARM_UP_S = 1.0
STEADY_S, AFTER_S = 0.1, 0.03
DEATH_LIMIT_S, SETTLED_S = 10.0, 0.02
SERVICE = "orders"


class Moment(msgspec.Struct, frozen=True):
    """One outage as the calibration saw it: steady since, injected how, watched until."""

    steady_ns: int
    receipt: Receipt
    observed_ns: int


class Bench:
    """The rig around the calibration target, and everything that it recorded."""

    def __init__(self, manifest: Manifest, rig: rigs.LocalRig, records: list[Record]) -> None:
        self.manifest, self.rig, self.records = manifest, rig, records

    async def outages(self, count: int, seed: int, tell: Callable[[int], None]) -> list[Moment]:
        """Programme `count` outages, evenly over the orders of magnitude, under load."""
        rng = random.Random(seed)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port())
        moments = []
        for number in range(count):
            moments.append(await self._outage(reader, writer, rng))
            tell(number + 1)
        writer.close()
        return moments

    @contextlib.asynccontextmanager
    async def loaded(self) -> AsyncIterator[None]:
        """Keep the target under load, and watched, as it is in a trial."""
        assert self.rig.workload is not None
        await self.rig.workload.start()
        watching = asyncio.create_task(self.rig.watch([SERVICE], []))
        try:
            await asyncio.sleep(WARM_UP_S)
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            await self.rig.workload.stop()

    def _port(self) -> int:
        return int(self.rig.target.expand("{port.service}", where="calibration"))

    async def _outage(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
    ) -> Moment:
        length = round(SHORTEST_NS * (LONGEST_NS / SHORTEST_NS) ** rng.random())
        fractions = sorted(rng.random() for _ in range(4))
        steady = time.monotonic_ns()
        await asyncio.sleep(STEADY_S)
        asked = time.monotonic_ns()
        writer.write(b"D %d %b\n" % (length, " ".join(f"{part:.6f}" for part in fractions).encode()))
        await reader.readline()
        answered = time.monotonic_ns()
        await reader.readline()
        await asyncio.sleep(AFTER_S)
        receipt = Receipt(
            fault="programmed outage",
            mechanism="command to the calibration target",
            t0_mono_ns=answered,
            t0_source="its answer",
            uncertainty_ns=answered - asked,
        )
        return Moment(steady, receipt, time.monotonic_ns())

    def compare(self, moments: Sequence[Moment]) -> list[Outage]:
        """Measure each outage and set it beside the truth; once the load has ended and all was recorded."""
        text = (self.rig.target.run_dir / "truth.jsonl").read_bytes()
        truths = [msgspec.json.decode(line, type=Truth) for line in text.splitlines()]
        return [compare(truth, self.measure(moment)) for truth, moment in zip(truths, moments, strict=True)]

    def measure(self, moment: Moment) -> Rto:
        """Cut the outage out of the records and hand it to the checker of every trial."""
        facts = Facts(History.of(self._history(moment)))
        return rto.measure(facts, moment.receipt)[0]

    def _history(self, moment: Moment) -> list[Record]:
        first, last, fault = moment.steady_ns, moment.observed_ns, moment.receipt.t0_mono_ns
        events = [
            event
            for record in self.records
            if isinstance(record, ServiceBatch)
            for event in record.events
            if first <= event[0] <= last
        ]
        seen = [one for one in self.records if isinstance(one, SignalSeen) and first <= one.mono_ns <= last]
        watched = [one for one in self.records if isinstance(one, ServiceWatched)]
        before = [event for event in events if event[0] <= fault]
        after = [event for event in events if event[0] > fault]
        return [
            Header(plan=plan(), manifest=self.manifest, version=blackstart.__version__, host={}),
            StageReached(stage="steady", mono_ns=first),
            ServiceBatch(service=SERVICE, events=before),
            Injected(receipt=moment.receipt),
            *seen,
            ServiceBatch(service=SERVICE, events=after),
            StageReached(stage="observed", mono_ns=last),
            *watched,
        ]

    async def deaths(self, count: int, tell: Callable[[int], None]) -> list[int]:
        """Kill a process `count` times; return how long each death took to be noticed, in nanoseconds.

        Struck and noticed by what a trial strikes and notices with, and under load as a trial is: after
        20 ms of nothing the waking of the processors is 0.2 ms of the notice.
        """
        target = self.rig.target
        found = []
        for number in range(count):
            reference, known = await target.process("victim"), len(self.records)
            bed = Deathbed({"victim": reference}, SystemClock())
            await asyncio.sleep(SETTLED_S)  # not while the victim is being loaded
            killed, _ = await bed.strike(signal.SIGKILL)
            await bed.gone(DEATH_LIMIT_S)
            found.append(bed.noticed["victim"] - killed)
            bed.close()
            await self._ended(reference.pid, known)
            await target.start("victim")
            tell(number + 1)
        return found

    async def _ended(self, pid: int, since: int) -> None:
        """Wait until the rig has seen it too, `since` that record: only then can it start another."""
        while True:
            for record in self.records[since:]:
                if isinstance(record, ProcessSeen) and record.what == "exited" and record.pid == pid:
                    return
            await asyncio.sleep(0.001)


def plan() -> Plan:
    """Return the plan that every programmed outage belongs to."""
    scenario = Scenario(
        id="calibration",
        title="programmed outage",
        requirement="R48",
        fault=FaultStep(kind="programmed"),
        objectives=Objectives(rto_ms=1000.0),
        steady=Steady(hold_s=0.0),
        new_epoch=True,
    )
    return Plan(
        trial_id="calibration", scenario=scenario, components=("server",), service=SERVICE, seed=0, replay=""
    )


def compare(truth: Truth, measured: Rto) -> Outage:
    """Set what was measured beside what was."""
    phases = (
        measured.detection_ns,
        measured.response_ns,
        measured.recovery_ns,
        measured.validation_ns,
        measured.resume_ns,
    )
    known = [phase for phase in phases if phase is not None]
    whole = measured.total_ns is not None and len(known) == len(phases)
    stamps = [measured.stamps.get(name) for name in StampName]
    errors = [
        abs(stamp.mono_ns - true)
        for stamp, true in zip(stamps, truth.stamps_ns, strict=True)
        if stamp is not None
    ]
    return Outage(
        programmed_ns=truth.outage_ns,
        true_ns=truth.stamps_ns[-1] - truth.stamps_ns[0],
        measured_ns=measured.total_ns,
        uncertainty_ns=measured.uncertainty_ns,
        phases_sum=whole and sum(known) == measured.total_ns,
        phase_error_ns=max(errors, default=None),
    )


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Bench]:
    """Start the calibration target in `folder` under a guardian, and end it again."""
    manifest = manifests.load(Path(__file__).parent / "target.toml")
    records: list[Record] = []
    guardian = await guard.start(folder)
    rig = rigs.build(
        manifest,
        run_dir=folder,
        seed=0,
        clock=SystemClock(),
        sink=records.append,
        protect=guardian.protect,
    )
    try:
        await rig.target.open()
        yield Bench(manifest, rig, records)
    finally:
        await rig.target.close()
        await guardian.undo()
        await guardian.close()
