"""Reading the state documents, in simulated time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine import settle
from blackstart.engine.clocks import SimClock, simulate
from blackstart.errors import TargetError
from blackstart.model.manifest import StateDocument

if TYPE_CHECKING:
    from blackstart.model.record import StateRead

NAMES = ("positions", "orders", "risk", "pnl", "strategy")


class Firm:
    """A target whose host `dead` gives no answer for `silent_s`, and then a failure."""

    def __init__(self, clock: SimClock, hosts: dict[str, str], silent_s: float) -> None:
        self._clock, self._hosts, self._silent_s = clock, hosts, silent_s
        state = {name: StateDocument(url=f"http://{host}/{name}") for name, host in hosts.items()}
        self.manifest = SimpleNamespace(state=state)
        self.asked = 0

    async def document(self, name: str) -> dict[str, Any]:
        """Answer at once, or never."""
        self.asked += 1
        if self._hosts[name] == "dead":
            await self._clock.sleep_until(self._clock.now().mono_ns + round(self._silent_s * 1e9))
            raise TargetError("cannot be reached", where=name) from TimeoutError()
        return {"name": name}

    async def export(self, stream: str, folder: Any) -> Any:
        """Not asked for."""
        raise NotImplementedError


def read(hosts: dict[str, str], silent_s: float, moment: Any) -> tuple[dict[str, StateRead], float]:
    """Read all documents; returns the records, and how long that took in seconds."""

    async def main() -> tuple[dict[str, StateRead], float]:
        clock = SimClock(asyncio.get_running_loop())
        rig: Any = SimpleNamespace(target=Firm(clock, hosts, silent_s), oracle=None)
        found: list[Any] = []
        start = clock.now().mono_ns
        await settle.read_state(rig, clock, found.append, moment)
        return {one.name: one for one in found}, (clock.now().mono_ns - start) / 1e9

    return simulate(main())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_dead_target_costs_one_time_out(moment: Any) -> None:
    """Five documents of a host that does not answer take the ten seconds of one, and each says why."""
    found, took_s = read(dict.fromkeys(NAMES, "dead"), 10.0, moment)
    assert took_s == pytest.approx(10.0, abs=0.1)
    assert set(found) == set(NAMES)
    assert all("cannot be reached" in (one.error or "") for one in found.values())


def test_another_host_is_read_all_the_same() -> None:
    """What one dead host holds is unknown, and nothing else."""
    found, _ = read({"positions": "alive", "orders": "alive", "pnl": "dead", "risk": "dead"}, 10.0, "after")
    assert {name: one.document is not None for name, one in found.items()} == {
        "positions": True,
        "orders": True,
        "pnl": False,
        "risk": False,
    }


def test_all_reading_has_one_limit() -> None:
    """After 15 s it is over, whatever a document is still waiting for."""
    found, took_s = read({"positions": "dead", "pnl": "alive"}, 3600.0, "after")
    assert took_s == pytest.approx(15.0, abs=0.1)
    assert found["pnl"].error is None
    assert "not read within 15 s" in (found["positions"].error or "")


class Exchange:
    """An oracle that notes in which order it is asked."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    async def _tell(self, name: str) -> dict[str, Any]:
        self._asked.append(name)
        return {"said": len(self._asked)}

    async def open_orders(self) -> Any:
        """Name the orders."""
        return await self._tell("orders")

    async def positions(self) -> Any:
        """Name the positions."""
        return await self._tell("positions")

    async def market(self) -> Any:
        """Name the prices."""
        return await self._tell("market_data")

    async def sessions(self) -> Any:
        """Name the sessions."""
        return await self._tell("connectivity")


@pytest.mark.parametrize(("moment", "times"), [("before", 0), ("after", 2)])
def test_prices_and_sessions_are_read_on_both_sides_of_the_target(moment: Any, times: int) -> None:
    """After the recovery the exchange tells of what moves before the target is asked and again afterwards."""
    found: list[StateRead] = []

    async def main() -> None:
        clock = SimClock(asyncio.get_running_loop())
        rig: Any = SimpleNamespace(target=Firm(clock, {"pnl": "alive"}, 0.0), oracle=Exchange([]))
        await settle.read_state(rig, clock, found.append, moment)  # type: ignore[arg-type]

    simulate(main())
    names = [(one.side, one.name) for one in found]
    for name in ("market_data", "connectivity"):
        places = [at for at, key in enumerate(names) if key == ("oracle", name)]
        assert len(places) == times
        if times:
            assert places[0] < names.index(("target", "pnl")) < places[1]
    assert ("oracle", "positions") in names
