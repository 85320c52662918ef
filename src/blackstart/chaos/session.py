"""A session of chaos: one long trial of many disturbances, from opening the target to the final audit.

    open → load → (wait → steady → inject → witness → observe → revert → reconcile)… → quiesce → read → close

Whatever happens, the second half is gone through: everything is reverted and closed. A session never raises
because of its target.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from blackstart.chaos import episode as episodes_of
from blackstart.chaos import keys, log, opening, reconcile
from blackstart.chaos.judge import Case, elsewhere
from blackstart.chaos.model import Alert, Figures, Memory, Radius, Summary
from blackstart.chaos.monitor import Monitor, answers, finding, grown
from blackstart.chaos.radius import TellsSymbols, Watch, allowed
from blackstart.chaos.segment import Segment
from blackstart.engine import after, before, conductor, guard, locks
from blackstart.engine.breakage import Breakages
from blackstart.engine.oversight import INTERRUPTED, Oversight, keep_flushing, uncancel, uninterrupted
from blackstart.engine.resources import Sampler
from blackstart.engine.trial import RunningTrial, Stop, tell
from blackstart.errors import BlackstartError
from blackstart.host import heap
from blackstart.model.outcome import Rpo
from blackstart.model.record import Problem, ResourceSample, StateRead
from blackstart.model.verdict import Verdict
from blackstart.scenario.plan import service_of
from blackstart.target.workload import WorkloadProcess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blackstart.chaos.judge import Judge
    from blackstart.chaos.model import Ending, Episode, Injection, LeftOut, Orders
    from blackstart.chaos.monitor import Finding
    from blackstart.chaos.plan import Planned
    from blackstart.chaos.reconcile import Reconciliation
    from blackstart.engine.conductor import How, Kit
    from blackstart.engine.recorder import Recorder
    from blackstart.engine.trial import Guarding
    from blackstart.model.manifest import Manifest
    from blackstart.model.record import Record
    from blackstart.model.verdict import CheckResult

NS = 1_000_000_000
EPISODES, OPENING, CLOSING = "injections", "opening", "closing"
_LEAD_NS = 2 * NS
_FIGURES_NS = NS
_WHOLE_NS = NS  # also long enough for the last word of every watcher on a busy host

Aside = Callable[..., Coroutine[Any, Any, Any]]
"""Does a piece of work beside the loop, so that looking never stops: `asyncio.to_thread`."""


async def conduct(
    orders: Orders,
    manifest: Manifest,
    folder: Path,
    kit: Kit,
    planned: Planned,
    *,
    aside: Aside = asyncio.to_thread,
    judge: Judge = elsewhere,
) -> Summary:
    """Run a session in `folder`, which exists. Cancelling ends it in order; cancelling again hurries that up.

    Raises FaultError when there can be no guardian.
    """
    lock = locks.hold(str(folder), locks.OWNER_LOCK)
    assert lock is not None, "nobody else is at work in this folder"
    try:
        return await Session(orders, manifest, folder, kit, planned, aside=aside, judge=judge).run()
    finally:
        locks.release(lock)


class Session:
    """One session on its way."""

    def __init__(
        self,
        orders: Orders,
        manifest: Manifest,
        folder: Path,
        kit: Kit,
        planned: Planned,
        *,
        aside: Aside,
        judge: Judge,
    ) -> None:
        self._aside, self._judge = aside, judge
        self._orders, self._manifest, self._folder, self._kit = orders, manifest, folder, kit
        self._profile, self._planned = orders.profile, planned
        service = service_of(manifest, episodes_of.SERVICE)
        self._monitor = Monitor(manifest, orders.profile, service)
        self._service = service
        self._radius: Watch | None = None
        self._inside: frozenset[str] | None = None
        self._guard: Guarding | None = None
        self._rig: Any = None
        self._segment: Segment | None = None
        self._breakages: Breakages | None = None
        self._problems: list[str] = []
        self._oversight = Oversight(folder, self._problem)
        self._number: int | None = None
        self._done = 0
        self._kept: deque[Path] = deque()
        self._start_ns: int | None = None
        self._end_ns: int | None = None
        self._memory = Memory()
        self._first: list[Record] = []
        self._compared: frozenset[str] = frozenset()
        self._even: frozenset[str] = frozenset()
        self._lost, self._validation = Rpo(), dict[str, "CheckResult"]()
        self._figures = Figures()

    async def run(self) -> Summary:
        """See `conduct`."""
        self._oversight.begin()
        ending, why = await self._course()
        await self._oversight.to_the_end(self._second_half())
        return Summary(
            ending=ending,
            why=why,
            duration_s=self._lasted_s(),
            figures=self._figures,
            rpo=self._lost,
            validation=self._validation,
            problems=tuple(self._problems),
            memory=self._memory,
            open_ended=self._orders.open_ended,
        )

    async def _course(self) -> tuple[Ending, str]:
        """Go as far as it gets. What ends the chaos early does not keep the books from being read."""
        if self._orders.approval is not None:
            self._oversight.job(self._at_end(self._orders.approval.ends_wall_ns))
        ending, why = await self._attempt(self._open())
        if ending != "complete":
            return ending, why
        ending, why = await self._attempt(self._play())
        self._end_ns = self._now()
        if ending == "stopped":
            self._oversight.stop = None
        if ending in ("halted", "error"):
            return ending, why
        read, unread = await self._attempt(self._finish(must_serve=ending != "stopped"))
        if read != "complete":
            self._problems.append(f"books-not-read: {unread or read}")
        return ending, why

    async def _attempt(self, work: Coroutine[Any, Any, None]) -> tuple[Ending, str]:
        """Do a part of the session; says how it ended, and why if it was not to its end."""
        stop = await self._oversight.attempt(work)
        if stop is None:
            return "complete", ""
        if stop.code == INTERRUPTED:
            return "interrupted", ""
        kinds: dict[str, Ending] = {"halted": "halted", "stop-condition": "stopped"}
        return kinds.get(stop.code, "error"), f"{stop.code}: {stop.text}"

    async def _at_end(self, ends_wall_ns: int) -> None:
        """End it all when an approval ends, or a market is about to open, whatever is under way."""
        now = self._kit.clock.now()
        await self._until(now.mono_ns + ends_wall_ns - now.wall_ns)
        raise Stop("approval-over", "the approval ended, or a market is about to open")

    async def _open(self) -> None:
        """Start target and load, and prove the steady state."""
        kit = self._kit
        self._guard = guardian = await kit.guard(self._folder, on_halt=self._oversight.halt)
        self._rig = conductor.build_rig(
            kit, self._manifest, self._folder, seed=self._orders.seed, sink=self._see, guard=guardian
        )
        self._oversight.job(keep_flushing(kit.clock, self._recorder))
        trial = self._begin(OPENING, self._calm("start")).trial
        how: How = "error"
        try:
            await self._tell_left_out(await opening.prepare(trial, self._planned, kit.fault))
            await before.open_target(trial)
            self._watch(trial)
            self._oversight.job(self._sampler().run())
            await before.start_load(trial)
            await before.steady_state(trial)
            await before.snapshot(trial)
            await self._compare_first()
            how = "complete"
        finally:
            recorded = trial.recorded()
            self._first = [one for one in recorded if isinstance(one, StateRead)]
            samples = [one for one in recorded if isinstance(one, ResourceSample)]
            self._first += [msgspec.structs.replace(one, opening=True) for one in samples[-1:]]
            await self._end_segment(how)

    async def _compare_first(self) -> None:
        """Compare the books once before anything is broken; what nobody can compare is told (R22)."""
        found = await reconcile.reconcile(self._rig, self._kit.clock, self._profile.settle_s)
        self._compared, self._even = found.compared, found.even
        await self._tell_left_out(reconcile.uncompared(self._rig, self._profile.stop, found))

    async def _tell_left_out(self, left: Sequence[LeftOut]) -> None:
        if left:
            await self._tell("left-out", {"left_out": msgspec.to_builtins(left)})

    def _sampler(self) -> Sampler:
        kit = self._kit
        return Sampler(self._rig.target, self._manifest.components, self._folder, kit.clock, self._see)

    async def _play(self) -> None:
        """Break it again and again, until the time is over or enough was done."""
        self._start_ns = start = self._now()
        self._monitor.begin(start)
        self._oversight.job(self._look())
        self._oversight.job(self._tell_figures())
        self._watch_radius()
        if isinstance(self._rig.workload, WorkloadProcess):
            self._oversight.job(answers(self._rig.workload, self._kit.clock, self._monitor))
        await self._tell("playing", {"start_ns": start})
        orders = self._orders
        timed = orders.for_s is not None and orders.replayed is None
        end = start + round((orders.for_s or 0.0) * NS) if timed else None
        for episode in self._planned:
            due = start + round(episode.at_s * NS)
            if self._done == orders.max_faults:
                return
            await self._wait(due - _LEAD_NS if end is None else min(due - _LEAD_NS, end))
            begins = max(due, self._now())
            if (end is not None and begins >= end) or self._too_late(episode, begins):
                break
            await self._disturb(episode, due)
            await self._aside(heap.give_back)
        if self._done != orders.max_faults:
            await self._wait(end)

    async def _wait(self, mono_ns: int | None) -> None:
        """Wait until then, or until the window closes, as the clocks stand meanwhile."""
        while True:
            moments = [one for one in (mono_ns, self._last_moment()) if one is not None]
            if not moments or (now := self._now()) >= min(moments):
                return
            await self._until(min(*moments, now + _FIGURES_NS))

    def _too_late(self, episode: Episode, begins: int) -> bool:
        """Whether it would last beyond the end of the window if it began then."""
        last = self._last_moment()
        return last is not None and begins + round(episodes_of.lasts_s(episode.steps) * NS) > last

    def _watch_radius(self) -> None:
        """Look at the symbols outside the blast radius, where there is one. Raises Stop when nobody can."""
        orders, manifest = self._orders, self._manifest
        self._inside = inside = allowed(orders.profile, manifest, orders.seed)
        if inside is None:
            return
        if not isinstance(self._rig, TellsSymbols):
            raise Stop("radius-unwatched", f"{manifest.name}: its rig cannot tell symbols apart")
        limit_s = (orders.profile.radius or Radius()).silent_s
        self._radius = Watch(set(manifest.symbols) - inside, limit_s)
        self._oversight.job(self._rig.watch_symbols(self._service, self._radius))

    def _last_moment(self) -> int | None:
        """Return when the window closes, as the wall clock stands now: it may be set, or the host sleep."""
        if self._orders.not_after_wall_ns is None:
            return None
        now = self._kit.clock.now()
        return now.mono_ns + self._orders.not_after_wall_ns - now.wall_ns

    async def _disturb(self, episode: Episode, due: int) -> None:
        """Do one disturbance, write down what came of it, and see that the books agree."""
        before_it = log.scratch(self._folder)
        plan = episodes_of.plan_of(episode, self._manifest, self._profile, self._orders)
        segment = self._begin(f"{EPISODES}/{episodes_of.folder_name(episode)}", plan)
        how: How = "error"
        try:
            await self._break(segment.trial, episode, due)
            how = "complete"
        except Stop as stop:
            segment.problem(episodes_of.named(stop))
        except BlackstartError as error:
            segment.problem(Stop("target-failed", error.render()))
        except asyncio.CancelledError:
            uncancel()
            how = "interrupted"
        broken_off = how == "interrupted"
        injection, ended = await uninterrupted(self._account(episode, how))
        try:
            if broken_off or ended:
                raise asyncio.CancelledError
            if injection.verdict is Verdict.PASS:
                await self._aside(log.lighten, self._folder, before_it)
            clock, settle_s = self._kit.clock, self._profile.settle_s
            by_keys = partial(
                keys.missing,
                rig=self._rig,
                clock=clock,
                judged=partial(self._aside, self._judge),
                folder=self._folder / "ledger",
                limit_s=settle_s,
            )
            found = await reconcile.reconcile(self._rig, clock, settle_s, self._even, by_keys)
            self._monitor.reconciled(found.positions_right, found.missing)
        finally:  # what it came to is known, whatever else is cut short
            self._done += 1
            if not broken_off or injection.at_s is not None:
                injection = msgspec.structs.replace(injection, after=self._monitor.figures(self._now()))
                ended = (await uninterrupted(self._log(injection)))[1]
        if ended:
            raise asyncio.CancelledError
        await self._afterwards(injection, found)

    async def _account(self, episode: Episode, how: How) -> Injection:
        """Take back what is left, close the history, and judge it; alert where the service was not back."""
        segment = self._segment
        silent = await self._end_disturbance(how)
        assert self._start_ns is not None
        assert segment is not None
        case = Case(folder=str(segment.folder), episode=episode, start_ns=self._start_ns)
        found = await self._aside(self._judge, case)
        injection: Injection = msgspec.structs.replace(found.injection, outside_silent_ms=silent)
        away = injection.at_s is not None and not injection.recovered and how != "interrupted"
        if away and self._monitor.first("not-recovered"):
            text = f"{injection.name}: the service was not back within {self._profile.recovery_limit_s:g} s"
            await self._alert(finding("not-recovered", text))
        for why in episodes_of.left_in_place(injection):
            await self._alert(finding("left-in-place", why, stops=True))
        return injection

    async def _afterwards(self, injection: Injection, found: Reconciliation) -> None:
        """Alert; what follows is calm only once everybody is there, and the target serves again."""
        await self._judge_books(found)
        end = self._now() + round(self._profile.recovery_limit_s * NS) + _WHOLE_NS
        while injection.at_s is not None and self._monitor.away() and self._now() < end:
            await self._until(self._now() + self._monitor.period_ns)
        if self._monitor.serving(self._now()):
            self._number = None
            self._monitor.calm(self._now())

    async def _break(self, trial: RunningTrial, episode: Episode, due: int) -> None:
        """Go through the trial of one disturbance."""
        self._breakages = breakages = Breakages(trial, self._kit.fault)
        await self._watch_anew(trial)
        await before.steady_state(trial)
        await breakages.prepare()
        await breakages.aim()
        await self._until(due)
        await before.await_trigger(trial)
        await self._see_outside(trial)
        if self._too_late(episode, self._now()):
            raise Stop(episodes_of.WINDOW_CLOSED, "it would last beyond the end of the window")
        lasts_ns = round(episodes_of.lasts_s(episode.steps) * NS)
        self._number = episode.number
        self._monitor.disturbed(self._now() + lasts_ns)
        await self._tell("injecting", {"episode": msgspec.to_builtins(episode)})
        if self._radius is not None:
            self._radius.begin(self._now())
        await breakages.inject()
        self._monitor.disturbed(self._now() + lasts_ns)
        await after.observe(trial, breakages)
        await self._whole(trial, breakages)
        await self._oversight.stop_watching()
        self._watch(trial)
        await breakages.revert()
        await trial.stage("reverted")

    async def _see_outside(self, trial: RunningTrial) -> None:
        """See every symbol outside the blast radius trade: of one that does not, nobody could tell."""
        radius = self._radius
        if radius is None:
            return
        if not await trial.until(lambda: not radius.quiet(self._now()), trial.plan.scenario.steady.limit_s):
            names = ", ".join(radius.quiet(self._now()))
            text = f"no events of {names} before the fault: nobody could tell whether it disturbs them"
            raise Stop("radius-unwatched", text)

    async def _look_outside(self) -> None:
        """Stop it all when a symbol outside the blast radius is disturbed."""
        for symbol, silent_s in self._radius.disturbed(self._now()) if self._radius is not None else ():
            await self._radius_left(f"{symbol} was silent for {silent_s:.1f} s while a fault was in place")

    async def _radius_left(self, text: str) -> None:
        found = Stop(episodes_of.RADIUS_LEFT, f"outside the blast radius: {text}", verdict="FAIL")
        if self._segment is not None:
            self._segment.problem(found)
        await self._alert(finding(found.code, found.text, stops=True))

    async def _whole(self, trial: RunningTrial, breakages: Breakages) -> None:
        """Wait until everything that was hit has lived again for a while.

        A primary that stood still is told only later that it was passed over, and then starts again.
        """
        since = self._now()

        def held() -> bool:
            nonlocal since
            hit = (receipt.hit for receipt in breakages.receipts)
            since = since if all(trial.live.lives_again(one) for one in hit) else self._now()
            return self._now() - since >= _WHOLE_NS

        await trial.until(held, self._profile.recovery_limit_s)

    async def _end_disturbance(self, how: How) -> dict[str, float]:
        """Take back whatever is left, also when the session is being ended, and close the history.

        Returns for how long the symbols outside the blast radius were silent: also between two looks.
        """
        breakages, self._breakages = self._breakages, None
        if breakages is not None:
            await breakages.revert()
        silent = {} if self._radius is None else self._radius.end(self._now())
        for symbol in [] if self._radius is None else self._radius.untold(silent):
            text = f"{symbol} was silent for {silent[symbol] / 1e3:.1f} s while a fault was in place"
            await self._radius_left(text)
        await self._end_segment(how)
        return silent

    async def _judge_books(self, found: Reconciliation) -> None:
        stop = self._profile.stop
        if found.missing and found.short:
            stops = stop.lost_events is not None and found.missing > stop.lost_events
            await self._alert(finding("lost-events", "; ".join(found.short), stops=stops))
        outside = set(found.wrong_symbols) - (self._inside or set(found.wrong_symbols))
        if outside:
            await self._radius_left(f"positions are wrong: {', '.join(sorted(outside))}")
        for name in sorted(self._compared - found.compared):
            text = f"{name}: no answer after a fault within {self._profile.settle_s:g} s"
            self._problem(Stop("books-not-compared", text))
        self._compared |= found.compared
        wrong = [*found.wrong, *(f"order {one} is open on one side only" for one in found.one_sided)]
        if wrong:
            stops = stop.wrong_positions is not None and len(wrong) > stop.wrong_positions
            await self._alert(finding("books-differ", "; ".join(wrong[:5]), stops=stops))

    async def _log(self, injection: Injection) -> None:
        await self._tell("injection", {"injection": msgspec.to_builtins(injection)})
        await self._aside(log.append, self._folder / log.INJECTIONS, injection)
        if injection.verdict is Verdict.PASS:
            self._kept.append(self._folder / EPISODES / injection.folder.rsplit("/", 1)[-1])
        if len(self._kept) > self._profile.keep_histories:
            await self._aside(log.remove, self._kept.popleft())

    async def _finish(self, *, must_serve: bool) -> None:
        """See that it serves and everybody is there; let the books settle, read and audit everything."""
        trial = self._begin(CLOSING, self._calm("end")).trial
        how: How = "error"
        try:
            for record in self._first:
                trial.record(record)
            await self._watch_anew(trial)
            await trial.sleep(1.0)
            if must_serve:
                await self._see_it_serve(trial)
            await trial.until(lambda: not self._monitor.away(), self._profile.recovery_limit_s)
            await self._oversight.stop_watching()
            await after.stop_load(trial)
            await after.read(trial, self._folder / CLOSING)
            how = "complete"
        finally:
            folder = await self._end_segment(how)
        await self._tell("auditing", {})
        found = await self._aside(self._judge, Case(folder=str(folder)))
        self._lost, self._validation = found.rpo, found.validation

    async def _see_it_serve(self, trial: RunningTrial) -> None:
        """Alert when the load is on, nothing is broken any more, and the target does not serve in time."""
        limit_s, monitor = self._profile.recovery_limit_s, self._monitor
        if not await trial.until(lambda: monitor.serving(self._now()), limit_s):
            text = f"does not serve: waited {limit_s:g} s for it at the end of the session"
            await self._alert(finding("down-at-the-end", text))
        await self._tell_left_out(monitor.unevaluated())

    def _calm(self, what: str) -> Any:
        return episodes_of.calm_plan(what, self._manifest, self._profile, self._orders.seed)

    # What is seen, and who looks

    def _see(self, record: Record) -> None:
        """Take what the rig sees: for the figures always, into a history where one is open."""
        self._monitor(record)
        if self._segment is not None:
            self._segment.recorder(record)
        elif isinstance(record, Problem):  # between two histories: a watcher that failed, for one
            self._problem(Stop(record.code, record.text))

    def _recorder(self) -> Recorder | None:
        return None if self._segment is None else self._segment.recorder

    def _begin(self, name: str, plan: Any) -> Segment:
        assert self._guard is not None
        self._segment = Segment(
            plan,
            self._manifest,
            self._folder / name,
            self._kit,
            scratch=self._folder,
            guard=self._guard,
            rig=self._rig,
            expires=name.startswith(EPISODES),
        )
        return self._segment

    async def _end_segment(self, how: How) -> Any:
        segment, self._segment = self._segment, None
        assert segment is not None
        return await self._aside(segment.close, how)

    def _watch(self, trial: RunningTrial) -> None:
        self._oversight.watch(self._rig.watch(before.services(trial), before.interest(trial)))

    async def _watch_anew(self, trial: RunningTrial) -> None:
        """Watch what this segment needs, from its beginning: its history owes nothing to the one before."""
        await self._oversight.stop_watching()
        self._watch(trial)

    async def _look(self) -> None:
        """Look at every condition once in each period of the readiness probe."""
        while self._oversight.stop is None and self._end_ns is None:
            for found in self._monitor.look(self._now()):
                await self._alert(found)
            await self._look_outside()
            await self._until(self._now() + self._monitor.period_ns)

    async def _alert(self, found: Finding) -> None:
        """Tell people; and end it all if that is what the profile says."""
        start = self._start_ns or self._now()
        alert = Alert(
            code=found.code,
            text=found.text,
            at_s=round((self._now() - start) / NS, 3),
            injection=None if found.calm else self._number,
            stops=found.stops,
        )
        log.append(self._folder / log.ALERTS, alert)
        await self._tell("alert", {"alert": msgspec.to_builtins(alert)})
        if found.stops:
            stop = Stop("stop-condition", f"{found.code}: {found.text}", verdict="FAIL")
            self._oversight.stop_because(stop)
            if self._oversight.in_charge:
                raise stop

    async def _tell_figures(self) -> None:
        process = psutil.Process()
        while True:
            now = self._now()
            self._figures = self._monitor.figures(now)
            self._memory = grown(self._memory, process.memory_info().rss, now - (self._start_ns or now))
            await self._tell(
                "figures",
                {
                    "figures": msgspec.to_builtins(self._figures),
                    "at_s": (now - (self._start_ns or now)) / NS,
                    "memory": self._memory.end,
                },
            )
            await self._until(now + _FIGURES_NS)
            if self._end_ns is not None:
                return

    # Ending

    def _problem(self, stop: Stop) -> None:
        """Keep what makes the result UNKNOWN, each once: a session lasts long."""
        if (text := f"{stop.code}: {stop.text}") not in self._problems:
            self._problems.append(text)

    async def _second_half(self) -> None:
        """Revert, stop, close, prove. Nothing here may keep the next step from being done."""
        oversight = self._oversight
        await oversight.stop_watching()
        if self._breakages is not None:
            await oversight.closing_step("revert-failed", self._breakages.revert())
        if self._rig is not None:
            await oversight.close_rig(self._rig)
        if self._guard is not None:
            for one in await guard.last_undo(self._guard, str(self._folder), by="session"):
                if one.verified is False:
                    self._problems.append(f"left-in-place: {one.undo_id}: {one.evidence}")
        await oversight.end_jobs()

    def _now(self) -> int:
        return self._kit.clock.now().mono_ns

    async def _until(self, mono_ns: int) -> None:
        await self._kit.clock.sleep_until(mono_ns)

    async def _tell(self, event: str, figures: dict[str, Any]) -> None:
        await tell(self._kit.progress, event, figures)

    def _lasted_s(self) -> float:
        begin = self._start_ns
        return 0.0 if begin is None else round(((self._end_ns or self._now()) - begin) / NS, 3)
