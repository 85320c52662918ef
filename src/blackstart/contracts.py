"""Every protocol of Blackstart in one place: read this first.

A protocol asks for one or two methods; further abilities are protocols of their own, found with
`isinstance`. Nothing here is meant to be inherited from: any object with these methods will do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from blackstart.model.fault import LaunchChange, ProcessRef, Receipt, RemoteRef, Undo, Witness
from blackstart.model.record import Record
from blackstart.model.verdict import CheckResult

if TYPE_CHECKING:
    import signal
    from pathlib import Path

    from blackstart.model.data import Region
    from blackstart.model.instant import Instant
    from blackstart.model.manifest import Manifest, Match
    from blackstart.model.outcome import Run
    from blackstart.model.scenario import FaultStep, Plan


class Clock(Protocol):
    """The only source of time. `SystemClock` is real; `SimClock` jumps forward when everybody waits."""

    def now(self) -> Instant:
        """Both clocks, read together."""
        ...

    async def sleep_until(self, mono_ns: int) -> None:
        """Wait until the monotonic clock shows `mono_ns`."""
        ...


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """A stamped event from anywhere: a target's log, the oracle's stream, the workload's ledger."""

    source: str
    event: str
    mono_ns: int
    uncertainty_ns: int = 0
    fields: dict[str, Any] = {}


Sink = Callable[[Record], None]
"""Where adapters put what they see: the recorder of the running trial."""


@runtime_checkable
class Signal(Protocol):
    """Events out of the target or its oracle."""

    name: str

    def events(self) -> AsyncIterator[Observation]:
        """Everything from now on, until cancelled. Raises TargetError when the source is gone for good."""
        ...


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A probe's answer: asked at `asked_mono_ns`, answered at `mono_ns`."""

    ok: bool
    asked_mono_ns: int
    mono_ns: int
    detail: str = ""


@runtime_checkable
class Probe(Protocol):
    """A question with a yes or no, asked again and again."""

    name: str
    period_ns: int

    async def sample(self) -> Sample:
        """Ask once. Never raises: no answer is the answer no."""
        ...


@runtime_checkable
class Target(Protocol):
    """A system under test."""

    name: str
    manifest: Manifest

    async def open(self) -> None:
        """Start or attach. Raises TargetError saying which part did not come up, with the end of its log."""
        ...

    async def close(self) -> None:
        """End everything that `open` started; idempotent."""
        ...


@runtime_checkable
class HasProcesses(Protocol):
    """A target whose components are processes of this host."""

    async def process(self, component: str) -> ProcessRef:
        """Find the process behind a component right now.

        Raises TargetError when there is none, and for one of another host: its pid means nothing here.
        """
        ...


class Hold(Protocol):
    """A hold on one process of another host, that cannot be mistaken for a later owner of its pid."""

    @property
    def ref(self) -> RemoteRef:
        """Return which process it is."""
        ...

    async def signal(self, number: signal.Signals) -> tuple[int, int]:
        """Signal exactly this process; returns between which instants of our clock that happened.

        Raises TargetError when the host cannot be reached. A process that has ended is passed over.
        """
        ...

    async def state(self) -> str:
        """Return the kernel's letter for its state there, or `gone`. Raises TargetError."""
        ...

    def undo(self) -> Undo:
        """How the guardian lets it run on, over a connection of its own."""
        ...

    def close(self) -> None:
        """Watch it no longer; idempotent."""
        ...


@runtime_checkable
class HasHosts(Protocol):
    """A target with components on other hosts ([hosts] of its manifest)."""

    async def hold(self, component: str, told: Callable[[int], None]) -> Hold:
        """Take hold of the process behind a component; `told` hears, once, when it died, by our clock.

        Raises TargetError when there is none, or we may not signal it.
        """
        ...

    async def measure(self, component: str) -> Mapping[str, Any] | None:
        """Return what its process uses (as in `ResourceSample.components`); None when nobody can tell now."""
        ...


@runtime_checkable
class ReachesHosts(Protocol):
    """A fault that can also be done to components on other hosts. Any other is refused for those."""

    def unreachable(self, step: FaultStep) -> str | None:
        """Say why this step cannot be done there, or None when it can."""
        ...


@runtime_checkable
class Restartable(Protocol):
    """A target whose components can be started again by us, their operator."""

    async def start(self, process: str) -> None:
        """Start a process of the manifest and wait until it is ready. Records `ProcessSeen`.

        Or a component that a service manager runs, by its name.
        """
        ...

    def state_paths(self, process: str) -> Sequence[Path]:
        """Return what a cold restart wipes."""
        ...


@runtime_checkable
class AsksManagers(Protocol):
    """A target with components that a service manager runs: systemd units, containers."""

    async def ask_stop(self, component: str) -> str:
        """Have its manager begin an orderly stop; returns the command that does the same.

        Raises TargetError.
        """
        ...


@runtime_checkable
class KnowsItsOwn(Protocol):
    """A target that knows which processes it started, also when a component was found as a role."""

    def started_as(self, ref: ProcessRef) -> str | None:
        """Return the process's name in the manifest; None when somebody else started it."""
        ...


@runtime_checkable
class HasState(Protocol):
    """A target that can be asked for its state documents and streams."""

    async def document(self, name: str) -> Any:
        """One state document (`positions`, `orders`, …; docs/reference/state-documents.md).

        Raises TargetError.
        """
        ...

    async def export(self, stream: str, folder: Path) -> Record:
        """Write what the target holds of a stream as a ledger file; returns its `LedgerFile`."""
        ...


@runtime_checkable
class HasData(Protocol):
    """A target that says where its data lie ([data] of its manifest), so that they can be damaged."""

    async def regions(self, name: str, *, place: str = "") -> Sequence[Region]:
        """Find where the data of that name lie now; `place` is a regular expression on the places' names.

        Raises TargetError when that cannot be told.
        """
        ...


@runtime_checkable
class Operates(Protocol):
    """A target that can be asked to do something ([operations] of its manifest)."""

    async def operation(self, name: str) -> None:
        """Ask for it. Raises TargetError when it says no."""
        ...


@runtime_checkable
class HasDatabases(Protocol):
    """A target with components that are databases (`dsn` in their manifest entry)."""

    def dsn(self, component: str) -> str:
        """Return how it is reached. Raises TargetError."""
        ...

    async def ask(self, component: str, statement: str, *arguments: Any, from_outside: bool = False) -> Any:
        """Carry out a statement over a connection of our own; returns the first value of the first row.

        `from_outside`: connected to another database of the same server. Raises TargetError.
        """
        ...


@runtime_checkable
class HasLinks(Protocol):
    """A target that says which ports its links have ([links] of its manifest), so that they can be broken."""

    def link_ports(self, name: str) -> Sequence[int]:
        """Return the ports of the side that listens, as they are now. Raises TargetError, ManifestError."""
        ...


@runtime_checkable
class HasProxies(Protocol):
    """A target with links that lead through a proxy of ours (`proxy` in their manifest entry)."""

    async def ask_proxy(self, link: str, do: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have the proxy do something (`host.proxy`). Raises TargetError, FaultError."""
        ...

    @property
    def proxy_pid(self) -> int:
        """Return the proxy's process."""
        ...


@runtime_checkable
class Oracle(Protocol):
    """Who knows what was acknowledged, sharing nothing with the system under test."""

    name: str

    async def export(self, stream: str, folder: Path) -> Record:
        """Write everything acknowledged of a stream as a ledger file; returns its `LedgerFile`."""
        ...

    async def positions(self) -> Mapping[str, Any]:
        """Positions and cash by symbol."""
        ...

    async def open_orders(self) -> Sequence[Mapping[str, Any]]:
        """Orders that rest at the exchange."""
        ...


@runtime_checkable
class Misbehaving(Protocol):
    """An oracle that can also be the fault: an exchange that disconnects, delays, duplicates …."""

    async def misbehave(
        self, action: str, *, on: Match | None, parameters: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Arm or do it; the answer has `id`, and `mono_ns` once it took effect."""
        ...

    async def behave(self) -> None:
        """Disarm everything; idempotent."""
        ...

    def disarm(self) -> Undo:
        """How the guardian does the same without us: an `http` undo."""
        ...


@runtime_checkable
class TellsDeeds(Protocol):
    """An oracle that tells what became of a misbehaviour."""

    async def deeds(self, identifier: str) -> Sequence[int]:
        """When it happened (monotonic ns), oldest first; empty while it has not."""
        ...


@runtime_checkable
class Quiets(Protocol):
    """An oracle that can stop the market.

    Then the books on both sides come to rest before they are compared.
    """

    async def quiet(self) -> None:
        """Let nothing new happen from now on: the exchange goes to its `close` phase."""
        ...


@runtime_checkable
class TellsMarket(Protocol):
    """An oracle that tells the market's prices: what the target's marks and quotes are held against."""

    async def market(self) -> Mapping[str, Any]:
        """Best prices now by symbol: `bid`, `ask`, `last` (of the last trade) in ticks, None for none.

        Raises TargetError.
        """
        ...


@runtime_checkable
class TellsSessions(Protocol):
    """An oracle that tells whether the target is connected to it: what its links are held against."""

    async def sessions(self) -> Mapping[str, Any]:
        """Whether each of the target's sessions is logged on now, by name. Raises TargetError."""
        ...


@runtime_checkable
class ScriptsFills(Protocol):
    """An oracle that can fill the next large order in scripted slices (R33)."""

    async def script_fills(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arm it; `parameters`: `min_quantity`, `slices`, `interval_ms`, perhaps `symbol`."""
        ...


@runtime_checkable
class PlansPhases(Protocol):
    """An oracle that can open and close its market at planned moments (R32, R37)."""

    async def plan_phases(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Plan them; `parameters`: `phases`, a list of `{phase, in_ms}` counted from now."""
        ...


@runtime_checkable
class Workload(Protocol):
    """The load on the target, with a ledger of what was acknowledged."""

    async def start(self) -> None:
        """Begin; the rate is the manifest's."""
        ...

    async def submit(self, record: Mapping[str, Any]) -> None:
        """Send one special write (the large order of R33) through the same client."""
        ...

    async def stop(self) -> None:
        """Stop sending, wait for answers that are under way, keep the ledger; idempotent."""
        ...


class FaultContext(Protocol):
    """What a fault may use."""

    @property
    def target(self) -> Target:
        """Return the target."""
        ...

    @property
    def oracle(self) -> Oracle | None:
        """Return the oracle, if there is one."""
        ...

    @property
    def clock(self) -> Clock:
        """Return the only source of time."""
        ...

    @property
    def plan(self) -> Plan:
        """Return what is to be done."""
        ...

    @property
    def folder(self) -> Path:
        """Return the trial's folder; scratch of a fault lies in `folder / "fault"`."""
        ...

    @property
    def isolation(self) -> frozenset[str]:
        """Return what this trial has for itself: `network`, `files`, both or nothing."""
        ...

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Write the undo records, fsync them, and hear from the guardian that it holds them.

        Before the fault, always.
        """
        ...

    def record(self, record: Record) -> None:
        """Put a record into the trial's history."""
        ...

    def recorded(self) -> Sequence[Record]:
        """Everything recorded so far: for witnesses, who look for independent traces of the fault."""
        ...


@runtime_checkable
class Fault(Protocol):
    """One way to break something; one file in `faults/`."""

    name: str

    def unavailable(self, target: Manifest, step: FaultStep) -> str | None:
        """Why this fault cannot be done to that target here, or None when it can."""
        ...

    async def inject(self, ctx: FaultContext, step: FaultStep) -> Receipt:
        """Break the components and links of `step`.

        A fault that stays in place returns at once: it is taken back after `step.duration_s`, or at the end.
        Raises FaultError when it could not be done; then nothing is left in place.
        """
        ...

    async def witness(self, ctx: FaultContext, receipt: Receipt) -> Witness:
        """Prove independently that it bit."""
        ...

    async def revert(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Take it back; idempotent. For a killed process whose operator we are: start it again."""
        ...


class Rig(Protocol):
    """All that stands around one target for one trial.

    `blackstart.target.rig.build` makes it from a manifest.
    """

    @property
    def target(self) -> Target:
        """Return the target; nothing is started before its `open`."""
        ...

    @property
    def oracle(self) -> Oracle | None:
        """Return the oracle, if the manifest names one."""
        ...

    @property
    def workload(self) -> Workload | None:
        """Return the load, if the manifest names one."""
        ...

    async def watch(self, services: Sequence[str], interest: Sequence[Match]) -> None:
        """Watch signals, probes, component deaths, the named service streams and oracle events of interest.

        Until cancelled. Called once the target is open. Everything seen goes to the rig's sink at once, as
        records; service events as a `ServiceBatch` of one or more (the recorder merges them), events that
        match `interest` as `OracleSeen` too. A probe's first answer counts as a change. Leaves a
        `ServiceWatched` for each service behind when cancelled, and when it lost sight.
        """
        ...

    async def acknowledged(self, stream: str, folder: Path) -> Record:
        """Write what was acknowledged of a stream, by the oracle or by the workload.

        Returns its `LedgerFile`.
        """
        ...

    async def totals(self, stream: str) -> tuple[int | None, int | None]:
        """How many events were acknowledged and how many the target holds.

        None where counting is not cheap.
        """
        ...


Protect = Callable[[Iterable[Undo]], Awaitable[None]]
"""See `FaultContext.protect`: every process that Blackstart starts is protected by a `kill` undo, too."""


class RigFactory(Protocol):
    """Makes the rig for one trial; nothing is started before `rig.target.open()`."""

    def __call__(
        self, manifest: Manifest, *, run_dir: Path, seed: int, clock: Clock, sink: Sink, protect: Protect
    ) -> Rig:
        """Make it. Raises ManifestError when the manifest names something that is not there."""
        ...


@runtime_checkable
class Aimed(Protocol):
    """A fault that can look its victims up before the trigger, so that no time is lost when it comes."""

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Do everything that harms nobody yet."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A fault that needs something in place before the target starts: a mount, a preloaded library."""

    async def prepare(self, ctx: FaultContext, step: FaultStep) -> LaunchChange:
        """Do it, protected like a fault, and say what changes in the start of the target's processes."""
        ...


@runtime_checkable
class Exclusive(Protocol):
    """A fault that a component can have once at a time: the end of one would be the end of both."""

    exclusive: bool


@runtime_checkable
class HasMechanisms(Protocol):
    """A fault that can be done in several ways; `parameters.mechanism` forces one of them."""

    def mechanisms(self, target: Manifest) -> Mapping[str, str | None]:
        """Name them, best first, each with the reason why it cannot be had for that target here, or None.

        What can be tried is tried. `doctor` shows it; where none can be had, the fault cannot be done.
        """
        ...


@runtime_checkable
class Prepared(Protocol):
    """A target whose start can be changed for a fault (`Prepares`)."""

    def change_launch(self, change: LaunchChange) -> None:
        """Apply it to every process that is started from now on."""
        ...


@runtime_checkable
class Operated(Protocol):
    """A fault after which the operator of the target has something to do: that is us."""

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Do at once what an operator does: wait for the end, wipe what a cold restart wipes, start again."""
        ...


class HistoryView(Protocol):
    """A finished history as the checkers see it."""

    folder: Path

    def records(self) -> Sequence[Record]:
        """All records up to the last complete one."""
        ...


Checker = Callable[[HistoryView], CheckResult]
"""Pure: same history, same answer. An exception counts as UNKNOWN."""


@runtime_checkable
class Reporter(Protocol):
    """Turns a run into files or text."""

    name: str

    def render(self, run: Run, folder: Path) -> Sequence[Path]:
        """Write the artefacts into `folder` and return their paths."""
        ...


Progress = Callable[[str, Mapping[str, Any]], Awaitable[None] | None]
"""Told about each step of a run, for live views: an event name and its figures."""
