"""Misbehaviour on demand: armed on a ledger entry, carried out where its action belongs. Pure.

The engine only decides; the gateway asks it at four places: when an order was read (`before_booking`),
when it was booked (`after_booking`), when a message is about to go out (`outbound`), and at once (`now`).
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from paperexchange.errors import ExchangeError
from paperexchange.facts import KINDS, Fact

OUTBOUND: Final = frozenset(
    {
        "delay",
        "hold",
        "drop",
        "duplicate",
        "reorder",
        "corrupt",
        "disconnect_before_send",
        "disconnect_after_send",
        "disconnect_mid_message",
        "skew_sending_time",
        "skew_transact_time",
    }
)
NOW: Final = frozenset(
    {
        "release",
        "disconnect",
        "half_open",
        "slow_read",
        "slow_answers",
        "lose_messages",
        "freeze",
        "refuse_logon",
        "kill",
        "restart",
    }
)
PLACE: Final[dict[str, str]] = {
    **dict.fromkeys(OUTBOUND, "outbound"),
    **dict.fromkeys(NOW, "now"),
    "disconnect_before_booking": "before_booking",
    "disconnect_after_booking": "after_booking",
}
ACTIONS: Final = tuple(PLACE)
_FIRST_ON: Final = {
    "disconnect_before_booking": "order_received",
    "disconnect_after_booking": "order_accepted",
}


class Misbehaviour(msgspec.Struct, kw_only=True):
    """One armed misbehaviour; `on` None means at once, `count` how often it happens.

    `took_ns` is how long the last deed took: it took effect within that before its stamp.
    """

    id: str
    action: str
    on: dict[str, Any] | None
    session: str
    parameters: dict[str, Any]
    count: int
    expires_mono_ns: int
    armed_mono_ns: int
    fired: int = 0
    fired_mono_ns: list[int] = msgspec.field(default_factory=list)
    took_ns: int = 0
    ready: int = 0
    on_seq: int = 0

    @property
    def place(self) -> str:
        """Where in the exchange this action is carried out."""
        return PLACE[self.action]

    @property
    def spent(self) -> bool:
        """Whether nothing more will come of it."""
        return self.fired >= self.count

    def number(self, name: str, default: float) -> float:
        """Give a numeric parameter; ExchangeError when it is none."""
        value = self.parameters.get(name, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (value < 0 and "skew" not in self.action)
        ):
            raise ExchangeError(
                f"{value!r} is not a number of at least 0",
                where=f"parameters.{name}",
                hint=f"for example {default}",
            )
        return float(value)


class Engine:
    """Armed misbehaviours, in the order in which they were armed."""

    def __init__(self, on_ready: Callable[[Misbehaviour], None] = lambda _: None) -> None:
        """`on_ready` is told when an action of the place `now` is due."""
        self.on_ready = on_ready
        self.armed: list[Misbehaviour] = []
        self.past: list[Misbehaviour] = []
        self._count = 0

    def arm(
        self,
        action: str,
        *,
        session: str,
        now_ns: int,
        on: dict[str, Any] | None = None,
        parameters: dict[str, Any] | None = None,
        count: int = 1,
        expires_s: float = 30.0,
    ) -> Misbehaviour:
        """Arm one; raises ExchangeError for an unknown action or event, naming the known ones."""
        _check(action, on, count, expires_s)
        if on is None and action in _FIRST_ON:
            on = {"kind": _FIRST_ON[action]}
        self._count += 1
        armed = Misbehaviour(
            id=f"M{self._count}",
            action=action,
            on=on,
            session=session,
            parameters=parameters or {},
            count=count,
            expires_mono_ns=now_ns + int(expires_s * 1e9),
            armed_mono_ns=now_ns,
        )
        armed.number("ms", 100)
        self.armed.append(armed)
        if on is None:
            self._ready(armed, 0)
        return armed

    def observe(self, fact: Fact) -> None:
        """Make those ready whose event this entry is."""
        for armed in list(self.armed):
            if armed.on is None or armed.fired + armed.ready >= armed.count:
                continue
            if fact.mono_ns <= armed.expires_mono_ns and matches(armed.on, fact):
                self._ready(armed, fact.seq)

    def _ready(self, armed: Misbehaviour, seq: int) -> None:
        armed.on_seq = seq
        armed.ready += armed.count if armed.on is None and armed.place == "outbound" else 1
        if armed.place == "now":
            self.on_ready(armed)

    def take(self, session: str, place: str, now_ns: int) -> Misbehaviour | None:
        """Give the next ready misbehaviour of a session at a place, counted as fired."""
        for armed in self.armed:
            fits = armed.session == session and armed.place == place and armed.ready > 0
            if fits and (armed.on is not None or now_ns <= armed.expires_mono_ns):
                self.fire(armed, now_ns)
                return armed
        return None

    def fire(self, armed: Misbehaviour, now_ns: int) -> None:
        """Count it as done."""
        armed.ready -= 1
        armed.fired += 1
        armed.fired_mono_ns.append(now_ns)
        if armed.spent:
            self._retire(armed)

    def _retire(self, armed: Misbehaviour) -> None:
        if armed in self.armed:
            self.armed.remove(armed)
            self.past.append(armed)
            del self.past[:-1000]

    def expire(self, now_ns: int) -> None:
        """Retire what waited too long; what is ready still happens."""
        for armed in [a for a in self.armed if now_ns > a.expires_mono_ns and not a.ready]:
            self._retire(armed)

    def disarm(self, identifier: str | None = None) -> list[Misbehaviour]:
        """Disarm one (known by its id, past or present) or all; those that were armed or held something."""
        chosen = [a for a in [*self.armed, *self.past] if identifier in (None, a.id)]
        for armed in chosen:
            armed.ready = 0
            self._retire(armed)
        return chosen


def matches(on: dict[str, Any], fact: Fact) -> bool:
    """Whether the entry has the kind and every field value of `on`."""
    if on.get("kind") != KINDS[type(fact)]:
        return False
    return all(getattr(fact, name, None) == value for name, value in on.items() if name != "kind")


def _check(action: str, on: dict[str, Any] | None, count: int, expires_s: float) -> None:
    if action not in PLACE:
        raise ExchangeError(
            f"unknown misbehaviour {action!r}", where="action", hint="one of " + " ".join(sorted(PLACE))
        )
    if on is not None and on.get("kind") not in KINDS.values():
        raise ExchangeError(
            f"unknown event kind {on.get('kind')!r}",
            where="on.kind",
            hint="one of " + " ".join(KINDS.values()),
        )
    if count < 1 or expires_s <= 0:
        raise ExchangeError("count must be at least 1 and expires_s above 0", where="count, expires_s")
