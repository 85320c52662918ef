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
