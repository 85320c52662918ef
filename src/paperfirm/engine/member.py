"""What the exchange tells its members over HTTP: executions, orders, positions.

Asked, never believed blindly.
"""

from __future__ import annotations

from typing import Any

import msgspec

from paperfirm.engine.decide import (  # msgspec reads the annotations at run time
    ExchangeExecution,  # noqa: TC001
    ExchangeOrder,  # noqa: TC001
)
from paperfirm.engine.errors import EngineError
from paperfirm.http import HttpError, fetch

PAGE = 20_000


class ExecutionsPage(msgspec.Struct, frozen=True):
    """A page of fills; `next` is the cursor after it, `last` the newest fill's number."""

    executions: list[ExchangeExecution]
    next: int
    last: int


class ExchangePosition(msgspec.Struct, frozen=True):
    """A position as the exchange has it."""

    quantity: int = 0
    cash: int = 0


class Phase(msgspec.Struct, frozen=True):
    """Where the exchange's day is; `day` counts from the beginning of the exchange."""

    phase: str = ""
    day: int = 0


class _Positions(msgspec.Struct, frozen=True):
    positions: dict[str, ExchangePosition]


class _Orders(msgspec.Struct, frozen=True):
    orders: list[ExchangeOrder]


_phase = msgspec.json.Decoder(Phase).decode
_executions = msgspec.json.Decoder(ExecutionsPage).decode
_positions = msgspec.json.Decoder(_Positions).decode
_orders = msgspec.json.Decoder(_Orders).decode


class Member:
    """Client of the member interface for one account.

    Every method raises EngineError when the exchange does not answer.
    """

    def __init__(self, base: str, account: str, *, limit_s: float = 5.0) -> None:
        self._exchange = base
        self._base = f"{base}/accounts/{account}"
        self._limit_s = limit_s

    async def executions(self, since: int, *, limit: int = PAGE) -> ExecutionsPage:
        """Return the fills after number `since`, oldest first."""
        page: ExecutionsPage = await self._get(f"/executions?since={since}&limit={limit}", _executions)
        return page

    async def positions(self) -> dict[str, ExchangePosition]:
        """Position by symbol."""
        found: _Positions = await self._get("/positions", _positions)
        return found.positions

    async def orders(self, *, only_open: bool) -> list[ExchangeOrder]:
        """Open orders, or all of the day."""
        found: _Orders = await self._get("/orders?open=1" if only_open else "/orders", _orders)
        return found.orders

    async def phase(self) -> Phase:
        """Return where the exchange's day is."""
        found: Phase = await self._get("/phase", _phase, base=self._exchange)
        return found

    async def _get(self, path: str, decode: Any, *, base: str = "") -> Any:
        url = (base or self._base) + path
        try:
            status, body = await fetch(url, limit_s=self._limit_s)
            if status != 200:  # noqa: PLR2004 - OK
                raise EngineError(f"GET {url}: status {status}: {body[:200]!r}; look at the exchange")
            return decode(body)
        except (HttpError, msgspec.DecodeError) as error:
            raise EngineError(f"exchange reconciliation: {url}: {error}; trading waits for it") from error
