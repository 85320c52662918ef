"""A session from outside: who may, where to, the process that conducts it, how it stands, and the result."""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections import deque
from typing import IO, TYPE_CHECKING, Any

import msgspec

import blackstart
from blackstart.chaos import approved, log, profiles, radius
from blackstart.chaos.model import Figures, Injection, LeftOut, Orders, Summary
from blackstart.chaos.process import Job, Word
from blackstart.chaos.result import NOT_JUDGED, conclude, counts
from blackstart.engine import approval as approvals
from blackstart.engine import leftovers, permit, worker
from blackstart.engine.claim import claimed
from blackstart.engine.clocks import SystemClock
from blackstart.engine.suite import interrupts, new_folder
from blackstart.engine.trial import tell
from blackstart.errors import BlackstartError, PermitError
from blackstart.host.lifeline import Lifeline
from blackstart.scenario import radius as within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from blackstart.chaos.model import ChaosResult
    from blackstart.contracts import Progress
    from blackstart.model.approval import Grant
    from blackstart.model.manifest import Manifest

MODULE = "blackstart.chaos.process"
LAST = 8
NS = 1_000_000_000


def check(orders: Orders, manifest: Manifest) -> None:
    """Raise PermitError unless this may be done to that target; approvals are asked for by `granted`."""
    permit.known(manifest)
    profiles.check(orders.profile, manifest)
    allowed = radius.allowed(orders.profile, manifest, orders.seed)
    for step in (step for one in orders.replayed or () for step in one.steps):
        what = None if allowed is None else within.beyond(manifest, step, allowed)
        if what is not None:
            raise PermitError(f"{what}: outside the blast radius", where=manifest.name)


def granted(
    orders: Orders, manifest: Manifest, place: Path, now_ns: int, *, timed: bool = True
) -> Grant | None:
    """Return what allows these orders now; None where nothing needs an approval.

    Raises PermitError without one, ScenarioError for a session without an end. `timed`: see `permit.grant`.
    """
    if not (permit.needed(manifest) or orders.profile.approval):
        return None
    wish = approved.wish(orders, manifest, radius.allowed(orders.profile, manifest, orders.seed))
    return permit.grant(manifest, wish, place, now_ns, timed=timed)


def by_approval(orders: Orders, grant: Grant | None) -> Orders:
    """Return the orders with what allows them, and with nothing broken that would not be over by its end."""
    if grant is None:
        return msgspec.structs.replace(orders, approval=None)
    last_ns = grant.ends_wall_ns - round(approved.tail_s(orders.profile) * NS)
    if orders.not_after_wall_ns is not None:
        last_ns = min(last_ns, orders.not_after_wall_ns)
    return msgspec.structs.replace(orders, approval=grant, not_after_wall_ns=last_ns)


async def run(
    orders: Orders,
    manifest: Manifest,
    *,
    out: Path,
    folder: Path | None = None,
    progress: Progress,
    place: Path = approvals.PLACE,
) -> ChaosResult:
    """Run a session to its end and return its result; what was left behind earlier is cleared first.

    SIGINT and SIGTERM end it in order; a second one hurries. `place` is where approvals lie. Raises
    PermitError before anything is started.
    """
    check(orders, manifest)
    clock = SystemClock()
    orders = profiles.within(orders, clock.now().wall_ns)
    needed = permit.needed(manifest) or orders.profile.approval
    with claimed(manifest), approvals.alone(place if needed else None):
        orders = by_approval(orders, granted(orders, manifest, place, clock.now().wall_ns))
        return await _run(orders, manifest, out, folder, progress)


async def _run(
    orders: Orders, manifest: Manifest, out: Path, folder: Path | None, progress: Progress
) -> ChaosResult:
    await asyncio.to_thread(leftovers.clear, out)
    began = SystemClock().now()
    if folder is None:
        folder = new_folder(out, began)
    folder.mkdir(parents=True, exist_ok=True)
    log.write(folder / log.ORDERS, orders)
    keeper = Keeper(orders, manifest, folder, began.wall_ns, progress)
    allowed = radius.allowed(orders.profile, manifest, orders.seed)
    await keeper.hear("session", {"folder": str(folder), "radius": sorted(allowed or ())})
    working = asyncio.ensure_future(_conduct(orders, manifest, folder, keeper))
    with interrupts(lambda: _cancel(working)):
        summary = await working
    done = log.injections(folder)
    log.write(folder / log.RECORDING, log.recording(orders, done))
    result = conclude(
        keeper.status,
        manifest,
        blackstart.__version__,
        done=done,
        alerts=log.alerts(folder),
        left_out=keeper.left_out,
        summary=summary,
        approval=orders.approval,
    )
    await keeper.hear("ended", {"verdict": result.verdict.value})
    return result


def _cancel(working: asyncio.Task[Summary]) -> None:
    working.cancel()


class Keeper:
    """Hears what the process tells, keeps `status.json`, and passes it on to whoever shows it."""

    def __init__(
        self, orders: Orders, manifest: Manifest, folder: Path, wall_ns: int, progress: Progress
    ) -> None:
        self._folder, self._progress = folder, progress
        self._on_alert = shlex.split(orders.on_alert)
        self._called: list[asyncio.subprocess.Process] = []
        self.left_out: tuple[LeftOut, ...] = ()
        self._last: deque[str] = deque(maxlen=LAST)
        begun = log.begun(orders, folder, wall_ns)
        self.status = msgspec.structs.replace(
            begun, target=manifest.name, for_s=orders.for_s, counts=counts([])
        )

    async def hear(self, event: str, figures: Mapping[str, Any]) -> None:
        """Take one word of the process."""
        changes = _CHANGES[event](self, figures) if event in _CHANGES else None
        if event == "alert" and self._on_alert:
            await self._call(msgspec.json.encode(figures["alert"]))
        if changes is not None:
            self.status = msgspec.structs.replace(self.status, **changes)
            log.write(self._folder / log.STATUS, self.status)
        await tell(self._progress, event, figures)

    async def _call(self, alert: bytes) -> None:
        """Tell people by the command that was given; what becomes of it is theirs to see in its own log."""
        with (self._folder / "on-alert.log").open("ab") as file:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._on_alert, stdin=asyncio.subprocess.PIPE, stdout=file, stderr=file
                )
            except OSError as error:
                file.write(f"{self._on_alert[0]}: {error.strerror}\n".encode())
                return
        assert process.stdin is not None
        process.stdin.write(alert + b"\n")
        process.stdin.close()
        self._called.append(process)

    def leaving_out(self, heard: Mapping[str, Any]) -> None:
        """Note which kinds are left out."""
        self.left_out += msgspec.convert(heard["left_out"], tuple[LeftOut, ...])

    def figures(self, heard: Mapping[str, Any]) -> dict[str, Any]:
        """How it goes, once a second."""
        return {"state": "running", "figures": heard["figures"], "at_s": round(heard["at_s"], 1)}

    def injecting(self, heard: Mapping[str, Any]) -> dict[str, Any]:
        """Something is being broken."""
        steps = heard["episode"]["steps"]
        return {"active": tuple(" ".join([s["kind"], *s["components"], *s["links"]]) for s in steps)}

    def injection(self, heard: Mapping[str, Any]) -> dict[str, Any]:
        """Something was broken and is over."""
        one = msgspec.convert(heard["injection"], Injection)
        self._last.append(f"{one.number} {one.name}: {one.verdict}")
        kind = one.verdict.value.lower() if one.judged else NOT_JUDGED
        tally = {**self.status.counts, kind: self.status.counts[kind] + 1}
        return {"active": (), "counts": tally, "last": tuple(self._last)}

    def alert(self, _heard: Mapping[str, Any]) -> dict[str, Any]:
        """Something must be heard."""
        return {"alerts": self.status.alerts + 1}


_CHANGES: dict[str, Callable[[Keeper, Mapping[str, Any]], dict[str, Any] | None]] = {
    "left-out": Keeper.leaving_out,
    "session": lambda _self, _heard: {"state": "starting"},
    "playing": lambda _self, _heard: {"state": "running"},
    "auditing": lambda _self, _heard: {"state": "auditing", "active": ()},
    "ended": lambda _self, _heard: {"state": "ended", "active": ()},
    "figures": Keeper.figures,
    "injecting": Keeper.injecting,
    "injection": Keeper.injection,
    "alert": Keeper.alert,
}


async def _conduct(orders: Orders, manifest: Manifest, folder: Path, keeper: Keeper) -> Summary:
    with tempfile.TemporaryFile() as errors, Lifeline() as line:
        process = await worker.spawn(errors, line, MODULE)
        job = Job(
            orders=orders,
            manifest=profiles.lighter(manifest, orders.profile),
            folder=str(folder),
            parent=worker.Parent.here(line),
        )
        last = await worker.patiently(_listen(process, job, keeper), process)
        if last is not None and last.summary is not None:
            return last.summary
        if last is not None:
            raise BlackstartError(last.refused)
        return await _died(process, folder, errors)


async def _died(process: asyncio.subprocess.Process, folder: Path, errors: IO[bytes]) -> Summary:
    """Wait for the guardian of a process that died to take everything back; nothing more will be known."""
    said = worker.last_words(errors)
    await asyncio.to_thread(worker.settle, folder)
    why = f"worker-died: the process of the session ended with status {process.returncode}"
    return Summary(ending="error", why=f"{why}: {said}" if said else why, figures=Figures())


async def _listen(process: asyncio.subprocess.Process, job: Job, keeper: Keeper) -> Word | None:
    """Hand the job over and take its words; returns the last one, None when the process died."""
    last = None
    async for word in worker.words(process, job, Word):
        if word.summary is not None or word.refused:
            last = word
        if word.event:
            await keeper.hear(word.event, word.figures)
    return last
