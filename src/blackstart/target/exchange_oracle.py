"""The paper exchange as the oracle (docs/reference/exchange-interface.md): it knows what was acknowledged.

And it can be the fault.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from blackstart.errors import TargetError
from blackstart.model.fault import Undo
from blackstart.target import canonical, http, ledger
from blackstart.target.ledger import Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from blackstart.model.manifest import Manifest, Match, OracleSpec, Stream
    from blackstart.model.record import LedgerFile

PAGE = 20000
SILENCE_S = 1.0
"""The event stream has a heartbeat every 100 ms: after this long without one, it is broken."""

USER_STAMP_NS = 100_000
"""How late the exchange's receive stamp may be where the kernel gives none (p99 measured: 90 µs)."""

_SEQUENCE = {"orders": "accepted_seq", "executions": "exec_seq"}
_MOMENT = {"orders": "accepted_mono_ns", "executions": "mono_ns"}
_KEYS_OF_THE_WHOLE = ("count", "expires_s", "session")


class ExchangeOracle:
    """Implements Oracle and every ability of an oracle in `contracts`.

    `url` is asked for at each use: the exchange may have moved.
    """

    name = "exchange"

    def __init__(self, manifest: Manifest, spec: OracleSpec, url: Callable[[], str]) -> None:
        self._manifest = manifest
        self._url = url
        self.account, self.session = spec.account, spec.session

    async def export(self, stream: str, folder: Path) -> LedgerFile:
        """Write everything acknowledged of a manifest's stream; a failure is told in the record's `error`."""
        spec = self._manifest.streams[stream]
        kind = spec.acknowledged.removeprefix("oracle:")
        return await ledger.write(stream, "acknowledged", folder, self._rows(kind, stream, spec))

    async def positions(self) -> Mapping[str, Any]:
        """Return positions and cash by symbol. Raises TargetError."""
        document = await http.fetch_json(f"{self._url()}/accounts/{self.account}/positions")
        positions: dict[str, Any] = document["positions"]
        return positions

    async def open_orders(self) -> Sequence[Mapping[str, Any]]:
        """Return the orders that rest at the exchange. Raises TargetError."""
        document = await http.fetch_json(f"{self._url()}/accounts/{self.account}/orders?open=1")
        orders: list[dict[str, Any]] = document["orders"]
        return orders

    async def total(self, kind: str) -> int | None:
        """Return how many `orders` or `executions` were acknowledged. Raises TargetError."""
        summary = await self.summary()
        found = summary.get({"orders": "orders_accepted", "executions": "fills"}[kind])
        return found if isinstance(found, int) else None

    async def summary(self) -> dict[str, Any]:
        """Return the account's counts and sessions. Raises TargetError."""
        query = urlencode({"account": self.account})
        summary: dict[str, Any] = await http.fetch_json(f"{self._url()}/oracle/summary?{query}")
        return summary

    async def market(self) -> Mapping[str, Any]:
        """Return bid, ask and last trade by symbol. Raises TargetError."""
        document = await http.fetch_json(f"{self._url()}/market_data/snapshot")
        last = document.get("last", {})
        return {
            symbol: {"bid": _best(book["bids"]), "ask": _best(book["asks"]), "last": last.get(symbol)}
            for symbol, book in document["books"].items()
        }

    async def sessions(self) -> Mapping[str, Any]:
        """Return whether the target's session is logged on. Raises TargetError."""
        found = (await self.summary())["sessions"]
        return {self.session: found[self.session]["logged_on"]} if self.session in found else {}

    async def misbehave(
        self, action: str, *, on: Match | None, parameters: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Arm a misbehaviour, or do it at once without `on`.

        `count`, `expires_s` and `session` may be among the parameters. An action `market_data gap` is one of
        the market-data feed.
        """
        feed, _, of_feed = action.partition(" ")
        if feed == "market_data":
            return await self._post("/control/market_data", {"action": of_feed, **parameters})
        inner = {key: value for key, value in parameters.items() if key not in _KEYS_OF_THE_WHOLE}
        outer = {key: parameters[key] for key in _KEYS_OF_THE_WHOLE if key in parameters}
        event = None if on is None else {"kind": on.event, **on.where}
        body = {"action": action, "on": event, "session": self.session, "parameters": inner, **outer}
        return await self._post("/control/misbehave", body)

    async def deeds(self, identifier: str) -> Sequence[int]:
        """Return when a misbehaviour happened, oldest first. Raises TargetError."""
        path, key = ("market_data", "deeds") if identifier.startswith("D") else ("misbehaviours",) * 2
        listed = (await http.fetch_json(f"{self._url()}/control/{path}"))[key]
        return [moment for one in listed if one["id"] == identifier for moment in one["fired_mono_ns"]]

    async def behave(self) -> None:
        """Disarm everything; idempotent. Raises TargetError."""
        await http.call(f"{self._url()}/control/misbehave", method="DELETE")

    def disarm(self) -> Undo:
        """Tell the guardian how to do the same without us."""
        arguments = {"method": "DELETE", "url": f"{self._url()}/control/misbehave"}
        return Undo(id="exchange:disarm", action="http", arguments=arguments)

    async def quiet(self) -> None:
        """Let nothing new happen from now on: the exchange goes to its `close` phase. Raises TargetError."""
        await self._post("/control/phase", {"phase": "close"})

    async def script_fills(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have the account's next large order filled in the given slices (R33). Raises TargetError."""
        return await self._post("/control/fills", {"account": self.account, **parameters})

    async def plan_phases(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have the market enter phases by itself (R32, R37). Raises TargetError."""
        return await self._post("/control/calendar", parameters)

    async def events(
        self, kinds: Iterable[str], since: int | str = "now"
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Follow the exchange's events from `since` on, heartbeats among them.

        Raises TargetError when the stream breaks.
        """
        query = urlencode(
            {"since": since, "kinds": ",".join(sorted(kinds)), "account": self.account}, safe=","
        )
        url = f"{self._url()}/events?{query}"
        decoder = msgspec.json.Decoder(dict[str, Any])
        lines = http.Connection(url).lines()
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    batch = await anext(lines)
                yield [decoder.decode(line) for line in batch if line]
        except StopAsyncIteration:
            raise TargetError("the event stream ended", where=url) from None
        except (OSError, TimeoutError, msgspec.DecodeError, ValueError) as error:
            reason = str(error) or f"silent for {SILENCE_S:g} s"
            raise TargetError(f"the event stream broke: {reason}", where=url) from error
        finally:
            with contextlib.suppress(RuntimeError):
                await lines.aclose()  # type: ignore[attr-defined]

    async def _rows(self, kind: str, name: str, stream: Stream) -> AsyncIterator[Row]:
        async for event in self._acknowledged(kind):
            yield Row(
                key=canonical.text(canonical.field(event, stream.key, stream=name)),
                seq=event.get(_SEQUENCE[kind]),
                content=canonical.content(event, stream.content, stream=name) if stream.content else None,
                mono_ns=event.get(_MOMENT[kind]),
                notional=ledger.product(event, stream.notional, stream=name),
            )

    async def _acknowledged(self, kind: str) -> AsyncIterator[dict[str, Any]]:
        since = 0
        while True:
            query = urlencode({"stream": kind, "account": self.account, "since": since, "limit": PAGE})
            document = await http.fetch_json(f"{self._url()}/oracle/acknowledged?{query}", limit_s=30.0)
            for event in document["events"]:
                yield event
            if document["end"]:
                return
            since = document["next"]

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = await http.call(f"{self._url()}{path}", method="POST", body=body)
        return answer if isinstance(answer, dict) else {}


def _best(levels: Sequence[Sequence[int]]) -> int | None:
    """Return the best level's price, None on an empty side."""
    return levels[0][0] if levels else None


def received(event: Mapping[str, Any]) -> tuple[int, int]:
    """Return when an event reached the exchange and how late that stamp may be.

    The kernel's receive stamp where there is one.
    """
    moment = event.get("received_mono_ns")
    if moment is None:
        return int(event["mono_ns"]), 0
    return int(moment), 0 if event.get("received_stamp") == "kernel" else USER_STAMP_NS
