"""What a kind of network fault is: a name, and what its parameters ask of the packets of a link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from blackstart.errors import FaultError
from blackstart.host.shaping import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blackstart.model.fault import Undo
    from blackstart.model.scenario import FaultStep

BOTH, TO_SERVER, TO_CLIENT = "both", "to_server", "to_client"
DIRECTIONS = (BOTH, TO_SERVER, TO_CLIENT)
_COMMON = ("direction", "mechanism")


class Treatment(NamedTuple):
    """What is done to packets.

    `verdict` is `drop`, `reset` or `queue`; `share` of them are hit; `existing` spares connections that are
    made later. `shape` is what the queue does.
    """

    verdict: str
    share: float = 1.0
    shape: Shape = Shape()
    existing: bool = False


class Kind(NamedTuple):
    """One kind of fault. `numbers` are its parameters with their defaults (None: must be given)."""

    name: str
    says: str
    treat: Callable[[Mapping[str, float]], Treatment]
    numbers: Mapping[str, float | None] = {}
    words: Mapping[str, tuple[str, ...]] = {}
    direction: str = BOTH
    protocols: tuple[str, ...] = ("tcp", "udp")


class Put(NamedTuple):
    """A fault that is in place: the instants just before and after, and how it is undone."""

    before_ns: int
    after_ns: int
    undo: tuple[Undo, ...]
    source: str


def direction(kind: Kind, step: FaultStep) -> str:
    """Say whose packets are hit: those that go to the side that listens, those from it, or both."""
    chosen = str(step.parameters.get("direction", kind.direction))
    if chosen not in DIRECTIONS:
        raise FaultError(f"`{chosen}` is no direction", where=kind.name, hint=", ".join(DIRECTIONS))
    return chosen


def treatment(kind: Kind, step: FaultStep) -> Treatment:
    """Read the parameters. Raises FaultError naming what is unknown, missing or no sound number."""
    known = {**kind.numbers, **kind.words}
    for name in step.parameters:
        if name not in known and name not in _COMMON:
            hint = f"known: {', '.join((*known, *_COMMON))}"
            raise FaultError(f"has no parameter `{name}`", where=kind.name, hint=hint)
    numbers = {name: _number(kind, step, name, usual) for name, usual in kind.numbers.items()}
    treated = kind.treat(numbers)
    words: dict[str, Any] = {name: _word(kind, step, name, allowed) for name, allowed in kind.words.items()}
    return treated._replace(shape=treated.shape._replace(**words)) if words else treated


def _number(kind: Kind, step: FaultStep, name: str, usual: float | None) -> float:
    value: Any = step.parameters.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        hint = "a number, not negative" if value is not None else "it has to be given"
        raise FaultError(f"parameters.{name} is {value!r}", where=kind.name, hint=hint)
    if name == "share" and not 0 < value <= 1:
        raise FaultError(f"parameters.share is {value!r}", where=kind.name, hint="0.05 is 5 %")
    return float(value)


def _word(kind: Kind, step: FaultStep, name: str, allowed: tuple[str, ...]) -> str:
    value = str(step.parameters.get(name, allowed[0]))
    if value not in allowed:
        raise FaultError(f"parameters.{name} is `{value}`", where=kind.name, hint=", ".join(allowed))
    return value
