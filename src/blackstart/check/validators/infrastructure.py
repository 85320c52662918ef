"""Infrastructure: resources of the host, signs of life of the target (R54, source document 7.2).

As in the source document a busy CPU and full memory are warnings (`LOG_WARN`: remarks), a full disk and
stuck threads are failures. CPU and memory are the host's, on which others work, too, Blackstart itself for
one: a remark says what of it the target's own components have. Besides: the configuration is loaded and
unchanged, timers fire, the log is written to after the fault, and no component that lived through the trial
has more than doubled its memory. What grew over a long session of chaos is told, and not judged: whoever
keeps what it acknowledged in memory grows by right.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from blackstart.check import rto
from blackstart.check.validators.documents import (
    ahead,
    document,
    earlier,
    fail,
    gone,
    raw,
    remark,
    unknown,
    validator,
)
from blackstart.check.validators.shapes import Infrastructure
from blackstart.model.record import Problem, ResourceSample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackstart.check.facts import Facts
    from blackstart.model.record import StateRead
    from blackstart.model.verdict import Finding

HIGH_PERCENT = 90.0
RECENT = 8
STUCK_SAMPLES = 4
LEAK_SAMPLES = 4
BLOCKED = frozenset("DTt")
HEARTBEAT_NS = 5_000_000_000
TIMER_SLACK_NS = 1_000_000_000
TIMER_PERIODS = 3
LEAK_FACTOR = 2.0
_TWO = 2
LEAK_BYTES = 100 * 1024 * 1024


@validator("infrastructure")
def check(facts: Facts) -> Iterable[Finding]:
    """Judge what we measured ourselves, then what the target says of itself, where it says anything."""
    samples = _while_up(facts)
    if not samples:
        yield unknown("not-measured", "the resources of the host were not measured")
    else:
        yield from _host(samples[-RECENT:], ours=any(p.code == "disk-full" for p in facts.all(Problem)))
        yield from _components(samples, facts.t0_ns)
        yield from _grown(facts, samples[-1])
    if "infrastructure" in facts.manifest.state:
        yield from _own(facts)
    else:
        yield remark(
            "no-document", "no infrastructure document: threads, timers and logging judged from outside only"
        )


def _while_up(facts: Facts) -> list[ResourceSample]:
    """Return what was measured until the final read: afterwards the target is taken down on purpose."""
    read = facts.stage("read")
    samples = [s for s in facts.all(ResourceSample) if not s.opening]
    return [s for s in samples if read is None or s.mono_ns <= read.mono_ns]


def _host(recent: list[ResourceSample], *, ours: bool) -> Iterable[Finding]:
    """Judge the host. A disk too full for our own history (`ours`) is no failure of the target: UNKNOWN."""
    share = {"cpu": _cores(recent), "memory": _mebibytes(recent[-1]), "disk": ""}
    for what, say in (("cpu", remark), ("memory", remark), ("disk", remark if ours else fail)):
        percent = median(getattr(sample, f"{what}_percent") for sample in recent)
        if percent > HIGH_PERCENT:
            yield say(f"{what}-high", f"{what} use of the host {percent:.0f} %{share[what]}")


def _cores(recent: list[ResourceSample]) -> str:
    """Say how many cores the target's components kept busy, by the processes that lived through it."""
    first, last = recent[0], recent[-1]
    took_s = (last.mono_ns - first.mono_ns) / 1e9
    pairs = [(first.components.get(name, {}), one) for name, one in last.components.items()]
    used_s = sum(new["cpu_s"] - old["cpu_s"] for old, new in pairs if old.get("pid") == new["pid"])
    return f", of which the target's components kept {used_s / took_s:.2f} cores busy" if took_s > 0 else ""


def _mebibytes(sample: ResourceSample) -> str:
    held = sum(one.get("rss") or 0 for one in sample.components.values())
    return f", of which the target's components hold {held >> 20:,} MiB"


def _components(samples: list[ResourceSample], t0_ns: int | None) -> Iterable[Finding]:
    names = sorted({name for sample in samples for name in sample.components})
    if not names:
        yield unknown("not-measured", "no component of the target was measured")
    for name in names:
        found = [sample.components[name] for sample in samples if name in sample.components]
        if name not in samples[-1].components:
            yield remark("component-gone", f"{name} was not there any more at the end")
            continue
        same = [one for one in found if one.get("pid") == found[-1].get("pid")]
        yield from _stuck(name, same[-STUCK_SAMPLES:])
        first_ns = next(s.mono_ns for s in samples if s.components.get(name) is same[0])
        yield from _leak(name, same, lived=t0_ns is None or first_ns <= t0_ns)


def counted(facts: Facts) -> dict[str, int]:
    """Return how many samples there are of each component's process, as it was at the end."""
    samples = _while_up(facts)
    last = samples[-1].components if samples else {}
    return {
        name: sum(sample.components.get(name, {}).get("pid") == one.get("pid") for sample in samples)
        for name, one in last.items()
    }


def _stuck(name: str, last: list[dict[str, Any]]) -> Iterable[Finding]:
    """Look for a process that cannot go on: none of its threads does, or it runs without using the CPU."""
    if len(last) < STUCK_SAMPLES:
        yield _too_few("threads-not-measured", name, len(last), STUCK_SAMPLES)
        return
    states = {one.get("state") for one in last}
    threads = [set(one.get("thread_states") or ()) for one in last]
    idle = last[0].get("cpu_s") == last[-1].get("cpu_s")
    if all(threads) and all(letters <= BLOCKED for letters in threads):
        seen = "".join(sorted(set().union(*threads)))
        yield fail("stuck-thread", f"every thread of {name} is blocked or stopped ({seen})", component=name)
    elif states == {"disk-sleep"} or (states == {"running"} and idle):
        yield fail("stuck-thread", f"{name} is stuck ({states.pop()})", component=name)
    elif not all(threads):
        text = f"{name}: the states of its threads were not seen, only that of the process"
        yield remark("threads-not-measured", text, component=name)


def _too_few(code: str, name: str, count: int, wanted: int) -> Finding:
    text = f"{name}: {count} samples of its process, {wanted} are wanted: not measured"
    return remark(code, text, component=name)


def _leak(name: str, found: list[dict[str, Any]], *, lived: bool) -> Iterable[Finding]:
    """Compare first and last memory of the process that is there now.

    One that was started after the fault takes its memory for the first time: that is no leak.
    """
    sizes = [one["rss"] for one in found if isinstance(one.get("rss"), int)]
    if _doubled(sizes):
        text = f"{name} grew from {sizes[0] >> 20} to {sizes[-1] >> 20} MiB"
        if lived:
            yield fail("memory-leak", text, component=name)
        else:
            text += " since its start after the fault: whether that is a leak was not measured"
            yield remark("memory-not-measured", text, component=name)
    elif len(sizes) < LEAK_SAMPLES:
        yield _too_few("memory-not-measured", name, len(sizes), LEAK_SAMPLES)


def _grown(facts: Facts, last: ResourceSample) -> Iterable[Finding]:
    """Tell which processes grew since the opening of the session, where this is the end of one."""
    for opening in (one for one in facts.all(ResourceSample) if one.opening):
        for name, now in last.components.items():
            then = opening.components.get(name, {})
            found = [one for one in (then, now) if one.get("pid") == now.get("pid")]
            sizes = [one["rss"] for one in found if isinstance(one.get("rss"), int)]
            if _doubled(sizes):
                since_s = (last.mono_ns - opening.mono_ns) / 1e9
                text = f"{name} grew from {sizes[0] >> 20} to {sizes[-1] >> 20} MiB in {since_s:,.0f} s"
                yield remark("memory-grew", text, component=name)


def _doubled(sizes: list[int]) -> bool:
    if len(sizes) < _TWO:
        return False
    return sizes[-1] > LEAK_FACTOR * sizes[0] and sizes[-1] - sizes[0] > LEAK_BYTES


def _own(facts: Facts) -> Iterable[Finding]:
    now = document(facts, "infrastructure", Infrastructure)
    before = yield from earlier(facts, "infrastructure", Infrastructure)
    _, read = raw(facts, "infrastructure")
    read_ns = read.mono_ns
    if before:
        yield from gone(_parts(before), _parts(now), "infrastructure:")
    yield from _configuration(now, before)
    for thread in now.threads or ():
        yield from ahead(thread.heartbeat_mono_ns or 0, read_ns, f"{thread.component} {thread.name}".strip())
        if thread.heartbeat_mono_ns is None or read.youngest_ns - thread.heartbeat_mono_ns > HEARTBEAT_NS:
            name = f"{thread.component} {thread.name}".strip()
            yield fail("stuck-thread", f"{name}: no sign of life for {HEARTBEAT_NS // 10**9} s", thread=name)
    yield from _timers(now, read)
    yield from _logging(now, facts)
    written_ns = now.logging.last_written_mono_ns if now.logging else None
    yield from ahead(written_ns or 0, read_ns, "log")
    scraped_ns = now.metrics.last_scraped_mono_ns if now.metrics else None
    yield from ahead(scraped_ns or 0, read_ns, "scrape")


def _parts(found: Infrastructure) -> list[str]:
    """Name what the document speaks of: its parts, and every timer. Threads go with their processes."""
    parts = [name for name in found.__struct_fields__ if getattr(found, name) not in (None, [])]
    return [*parts, *(f"timer {timer.name}" for timer in found.timers or ())]


def _configuration(now: Infrastructure, before: Infrastructure | None) -> Iterable[Finding]:
    if now.configuration is None:
        return
    if not now.configuration.loaded:
        yield fail("configuration-not-loaded", "the configuration is not loaded")
    old = before.configuration if before else None
    if old and old.sha256 and now.configuration.sha256 != old.sha256:
        yield fail("configuration-changed", "the configuration is not the one from before the fault")


def _timers(now: Infrastructure, read: StateRead) -> Iterable[Finding]:
    for timer in now.timers or ():
        yield from ahead(timer.last_fired_mono_ns or 0, read.mono_ns, f"timer {timer.name}")
        allowed_ns = TIMER_PERIODS * timer.period_ms * 1e6 + TIMER_SLACK_NS
        if timer.last_fired_mono_ns is None or read.youngest_ns - timer.last_fired_mono_ns > allowed_ns:
            yield fail(
                "timer-stopped",
                f"timer {timer.name} (every {timer.period_ms:g} ms) does not fire",
                timer=timer.name,
            )


def _logging(now: Infrastructure, facts: Facts) -> Iterable[Finding]:
    """Look for a word about the recovery; where the service never stopped there was none to be said."""
    if now.logging is None or facts.t0_ns is None or facts.receipt is None:
        return
    if now.logging.last_written_mono_ns is None or now.logging.last_written_mono_ns <= facts.t0_ns:
        calm = facts.plan.scenario.degrades or rto.measure(facts, facts.receipt)[0].interrupted is False
        say = remark if calm and now.logging.last_written_mono_ns is not None else fail
        yield say("log-silent", "nothing was written to the log since the fault")
