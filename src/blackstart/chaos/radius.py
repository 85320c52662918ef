"""The blast radius of a session by symbol (R22): what it is, and whether anything outside it is disturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from blackstart.chaos.episode import SERVICE
from blackstart.chaos.model import Radius
from blackstart.errors import PermitError
from blackstart.model.record import Record, ServiceBatch
from blackstart.scenario import radius, seeds
from blackstart.scenario.plan import service_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.chaos.model import Profile
    from blackstart.contracts import Sink
    from blackstart.model.manifest import Manifest

NS = 1_000_000_000


@runtime_checkable
class TellsSymbols(Protocol):
    """A rig that can tell the symbols of a service stream apart (`symbol` in its manifest entry)."""

    async def watch_symbols(self, service: str, sink: Sink) -> None:
        """Give the stream's events to `sink`, the symbol in the place of the key, until cancelled."""
        ...


def allowed(profile: Profile, manifest: Manifest, seed: int) -> frozenset[str] | None:
    """Return the symbols that may be disturbed; None where neither profile nor manifest limits them.

    Raises PermitError where the limit could not be kept: nobody could tell symbols apart, or there is none.
    """
    limits, wanted = manifest.limits.symbols, profile.radius
    if limits is None and wanted is None:
        return None
    wanted = wanted or Radius()
    why_not = radius.untold(manifest, service_of(manifest, SERVICE))
    if why_not is None and (strangers := radius.unknown(manifest, [*wanted.symbols, *(limits or ())])):
        why_not = f"it does not trade {', '.join(strangers)}"
    if why_not is not None:
        hint = "it needs `symbols`, and `symbol` of the service: see docs/reference/chaos.md"
        raise PermitError(f"the blast radius cannot be kept: {why_not}", where=manifest.name, hint=hint)
    found = set(manifest.symbols if limits is None else limits)
    if wanted.symbols:
        found &= set(wanted.symbols)
    if wanted.share is not None:
        many = max(1, int(wanted.share * len(manifest.symbols)))
        found = set(seeds.stream(seed, "chaos", "radius").sample(sorted(found), min(many, len(found))))
    if not found:
        raise PermitError("no symbol is in the blast radius of profile and manifest", where=manifest.name)
    return frozenset(found)


class Watch:
    """Sees whether the symbols outside go on. A sink for events whose key is their symbol."""

    def __init__(self, outside: Iterable[str], silent_s: float) -> None:
        self._silent_ns = round(silent_s * NS)
        self._last: dict[str, int | None] = dict.fromkeys(sorted(outside))
        self._since: int | None = None
        self._longest: dict[str, int] = {}
        self._told: set[str] = set()

    def __call__(self, record: Record) -> None:
        """Take events in."""
        if not isinstance(record, ServiceBatch):
            return
        for moment, symbol, _ in record.events:
            if symbol in self._last:
                self._note(symbol, moment)
                self._last[symbol] = max(moment, self._last[symbol] or 0)

    def quiet(self, now_ns: int) -> list[str]:
        """Name those without an event just now: of them nobody could tell whether they are disturbed."""
        return [one for one, last in self._last.items() if last is None or now_ns - last > self._silent_ns]

    def begin(self, now_ns: int) -> None:
        """Hear that a fault is in place from now on."""
        self._since, self._longest, self._told = now_ns, {}, set()

    def end(self, now_ns: int) -> dict[str, float]:
        """Hear that it is over; returns the longest silence of each in that time, in milliseconds."""
        if self._since is not None:
            for symbol in self._last:
                self._note(symbol, now_ns)
        self._since = None
        return {one: ns / 1e6 for one, ns in self._longest.items()}

    def disturbed(self, now_ns: int) -> list[tuple[str, float]]:
        """Return those that have been silent for too long since then, and for how many seconds; each once."""
        if self._since is None:
            return []
        found = {one: now_ns - max(last or 0, self._since) for one, last in self._last.items()}
        fresh = [one for one, ns in found.items() if ns > self._silent_ns and one not in self._told]
        self._told.update(fresh)
        return [(one, found[one] / NS) for one in fresh]

    def untold(self, silent_ms: dict[str, float]) -> list[str]:
        """Name those that were silent for too long, as `end` said, and over it before anybody looked."""
        long = [one for one, ms in silent_ms.items() if ms * 1e6 > self._silent_ns]
        fresh = [one for one in long if one not in self._told]
        self._told.update(fresh)
        return fresh

    def _note(self, symbol: str, moment: int) -> None:
        if self._since is not None:
            gap = moment - max(self._last[symbol] or 0, self._since)
            self._longest[symbol] = max(gap, self._longest.get(symbol, 0))
