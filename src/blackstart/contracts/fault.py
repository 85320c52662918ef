"""A fault, what it may use, and what it may be able to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from blackstart.contracts.oracle import Oracle
    from blackstart.contracts.seeing import Clock
    from blackstart.contracts.target import Target
    from blackstart.model.fault import LaunchChange, Receipt, Undo, Witness
    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Record
    from blackstart.model.scenario import FaultStep, Plan


@runtime_checkable
class ReachesHosts(Protocol):
    """A fault that can also be done to components on other hosts. Any other is refused for those."""

    def unreachable(self, step: FaultStep) -> str | None:
        """Say why this step cannot be done there, or None when it can."""
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
        """Everything recorded so far, in chaos without service events: for witnesses, who look for traces."""
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


@runtime_checkable
class Aimed(Protocol):
    """A fault that can look its victims up before the trigger, so that no time is lost when it comes."""

    async def aim(self, ctx: FaultContext, step: FaultStep) -> None:
        """Do everything that harms nobody yet."""
        ...


@runtime_checkable
class AimsEarly(Aimed, Protocol):
    """An `Aimed` fault that looks nobody up: earlier faults of its trial change nothing in what it aims at.

    So it is aimed before the first of them comes, and takes effect as soon as its own trigger does.
    """

    aims_early: bool


@runtime_checkable
class Prepares(Protocol):
    """A fault that needs something in place before the target starts: a mount, a preloaded library.

    In a session of chaos it is asked before the start, and again before each injection, on the running
    target: what is in place then stays, and nothing is done twice.
    """

    async def prepare(self, ctx: FaultContext, step: FaultStep) -> LaunchChange:
        """Do it, protected like a fault, and say what changes in the start of the target's processes."""
        ...


@runtime_checkable
class Exclusive(Protocol):
    """A fault that a component can have once at a time: the end of one would be the end of both."""

    exclusive: bool


@runtime_checkable
class Selective(Protocol):
    """A fault that can be kept to some symbols, those of its step (R22)."""

    def selective(self, step: FaultStep) -> str | None:
        """Say why this step cannot be kept to its symbols, or None."""
        ...


@runtime_checkable
class HasMechanisms(Protocol):
    """A fault that can be done in several ways; `parameters.mechanism` forces one of them."""

    def mechanisms(self, target: Manifest) -> Mapping[str, str | None]:
        """Name them, best first, each with the reason why it cannot be had for that target here, or None.

        What can be tried is tried. `doctor` shows it; where none can be had, the fault cannot be done.
        """
        ...


@runtime_checkable
class Operated(Protocol):
    """A fault after which the operator of the target has something to do: that is us."""

    async def operate(self, ctx: FaultContext, receipt: Receipt) -> None:
        """Do at once what an operator does: wait for the end, wipe what a cold restart wipes, start again."""
        ...
