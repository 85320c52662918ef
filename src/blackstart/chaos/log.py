"""The files of a session: each injection and alert a line, the orders, how it stands, the recording."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from blackstart.chaos.model import Alert, Episode, Injection, Orders
from blackstart.engine import journal
from blackstart.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

ORDERS = "orders.json"
INJECTIONS = "injections.jsonl"
ALERTS = "alerts.jsonl"
STATUS = "status.json"
RECORDING = "recording.json"
SCRATCH = "fault"
LARGE = 1 << 20

T = TypeVar("T", bound=msgspec.Struct)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What `status.json` says, once a second: who runs what, since when, and how it goes.

    Whoever keeps a schedule says when the `next_window` opens, the folder of the newest `session`, and
    that of the `worst` so far that did not pass.
    """

    pid: int
    target: str
    profile: str
    folder: str
    seed: int
    started_wall_ns: int
    state: str = "starting"
    at_s: float = 0.0
    for_s: float | None = None
    active: tuple[str, ...] = ()
    figures: dict[str, Any] = {}
    counts: dict[str, int] = {}
    alerts: int = 0
    last: tuple[str, ...] = ()
    next_window: str = ""
    session: str = ""
    worst: str = ""


def begun(orders: Orders, folder: Path, started_wall_ns: int) -> Status:
    """Return the first status of whoever carries out `orders` in `folder`: this process."""
    return Status(
        pid=os.getpid(),
        target=orders.target,
        profile=orders.profile.name,
        folder=str(folder),
        seed=orders.seed,
        started_wall_ns=started_wall_ns,
    )


def append(path: Path, value: msgspec.Struct) -> None:
    """Add a line."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(value) + b"\n")


def read(path: Path, kind: type[T]) -> list[T]:
    """Read all whole lines; none when there is no file."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line, type=kind) for line in lines]


def injections(folder: Path) -> list[Injection]:
    """Return everything that was broken, in order."""
    return read(folder / INJECTIONS, Injection)


def alerts(folder: Path) -> list[Alert]:
    """Return everything that was alerted."""
    return read(folder / ALERTS, Alert)


def write(path: Path, value: msgspec.Struct) -> None:
    """Put a whole document in the place of the one before, so that nobody reads half of one."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    temporary.replace(path)


def scratch(folder: Path) -> frozenset[str]:
    """Name what faults have left so far in the scratch of a session."""
    return frozenset(path.name for path in (folder / SCRATCH).glob("*"))


def lighten(folder: Path, before: Collection[str]) -> None:
    """Remove what is large and came since, the core dumps of what passed, unless an undo needs it."""
    paths = [folder / SCRATCH / name for name in scratch(folder) - set(before)]
    large = [path for path in paths if path.is_file() and path.stat().st_size > LARGE]
    if not large:  # the journals of hours need not be read for nothing
        return
    needed = {str(value) for one in journal.owed(str(folder)) for value in one["arguments"].values()}
    for path in large:
        if str(path) not in needed:
            path.unlink()


def remove(folder: Path) -> None:
    """Remove a history that is not to be kept."""
    shutil.rmtree(folder, ignore_errors=True)


def recording(orders: Orders, done: Iterable[Injection]) -> Orders:
    """Return the orders that do again what was really done, at the moments at which it was done."""
    episodes = [
        Episode(number=one.number, at_s=one.at_s, steps=one.steps)
        for one in done
        if one.at_s is not None and one.steps
    ]
    return msgspec.structs.replace(orders, replayed=tuple(episodes))


def load_recording(place: Path) -> Orders:
    """Read a recording, or what the folder of a session holds, also of one that died.

    Raises ScenarioError.
    """
    file = place / RECORDING if (place / RECORDING).is_file() or place.suffix == ".json" else place / ORDERS
    file = place if place.suffix == ".json" else file
    orders = msgspec.structs.replace(load_orders(file), scheduled=False, approval=None)
    done = orders if orders.replayed is not None else recording(orders, injections(place))
    if not done.replayed:
        raise ScenarioError("nothing was broken in it", where=str(file), hint="there is nothing to replay")
    return done


def load_orders(file: Path) -> Orders:
    """Read orders. Raises ScenarioError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Orders)
    except (OSError, msgspec.DecodeError) as error:
        hint = "name the folder of a session, or its recording.json"
        raise ScenarioError(f"cannot be read as a recording: {error}", where=str(file), hint=hint) from error
