"""Scripted fills: which order is filled when, in which quantities. Pure; the server owns the timer."""

from typing import Literal

import msgspec

When = Literal["interval", "before_ack", "on_cancel"]


class FillScript(msgspec.Struct):
    """Armed for the next order of `account` (and `symbol`, if given) with at least `min_quantity`."""

    id: str
    account: str
    min_quantity: int
    slices: list[int]
    symbol: str = ""
    interval_ms: float = 5.0
    when: When = "interval"


class FillScripts:
    """Scripts that wait for an order, and scripts that run on one."""

    def __init__(self) -> None:
        """Start without scripts."""
        self.armed: list[FillScript] = []
        self._running: dict[str, tuple[FillScript, int]] = {}

    def arm(self, script: FillScript) -> None:
        """Wait for the next fitting order; scripts are tried in the order in which they were armed."""
        self.armed.append(script)

    def bind(self, account: str, symbol: str, quantity: int) -> FillScript | None:
        """Take the first script that fits the order, so that it binds once."""
        if not self.armed:
            return None
        for index, script in enumerate(self.armed):
            fits = script.account == account and script.symbol in ("", symbol)
            if fits and quantity >= script.min_quantity:
                return self.armed.pop(index)
        return None

    def start(self, script: FillScript, order_id: str, *, filled: int = 0) -> None:
        """Run `script` on the order, of which `filled` is filled by its first slices already."""
        used = 0
        while used < len(script.slices) and sum(script.slices[: used + 1]) <= filled:
            used += 1
        self._running[order_id] = (script, used)

    def running(self, order_id: str) -> FillScript | None:
        """Give the script that runs on the order."""
        found = self._running.get(order_id)
        return found[0] if found else None

    def when(self, order_id: str) -> When | None:
        """Say what triggers the slices of the order's script."""
        found = self._running.get(order_id)
        return found[0].when if found else None

    def pending(self, order_id: str) -> bool:
        """Whether a slice is left."""
        found = self._running.get(order_id)
        return found is not None and found[1] < len(found[0].slices)

    def next_slice(self, order_id: str) -> int | None:
        """Give the next quantity, counted as used; None when there is none."""
        found = self._running.get(order_id)
        if found is None or found[1] >= len(found[0].slices):
            return None
        self._running[order_id] = (found[0], found[1] + 1)
        return found[0].slices[found[1]]

    def forget(self, order_id: str) -> None:
        """Drop the script of an order that is gone."""
        self._running.pop(order_id, None)
