"""The oracle that judges the target, and the load on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from blackstart.model.fault import Undo
    from blackstart.model.manifest import Match
    from blackstart.model.record import Record


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
