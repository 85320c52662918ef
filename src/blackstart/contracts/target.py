"""A system under test, and what it may be able to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from blackstart.model.data import Region
    from blackstart.model.fault import LaunchChange, ProcessRef, RemoteRef, Undo
    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Record


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
class TellsEnds(Protocol):
    """A target that can tell how a process ended, as its parent does or asks its manager."""

    async def ended_with(self, component: str, ref: ProcessRef) -> int | None:
        """Return its exit status, negative for the signal that ended it; None when only others know.

        Asked once it has ended, and before it is started again.
        """
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
class Prepared(Protocol):
    """A target whose start can be changed for a fault (`Prepares`)."""

    def change_launch(self, change: LaunchChange) -> None:
        """Apply it to every process that is started from now on."""
        ...
