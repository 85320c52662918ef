"""Faults of memory and processors: the kernel tells that they bite, and nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ordinary_user
import pytest
from fault_kit import Context

from blackstart.engine.verbs import begin
from blackstart.errors import FaultError
from blackstart.faults import limits, registry
from blackstart.host import cgroups, procs, schedule
from blackstart.host.schedule import Fare
from blackstart.model.fault import ProcessRef
from blackstart.model.scenario import FaultStep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackstart.model.fault import Receipt, Witness

BUSY = "print(1, flush=True)\nwhile True: sum(range(1000))"
RISING = "import time\nprint(1, flush=True)\nwhile True: sum(range(20000)); time.sleep(0.001)"
GROWING = (
    "import time\nkept = []\nprint(1, flush=True)\n"
    "while True: kept.append(bytearray(2**22)); time.sleep(0.005)"
)


def python(code: str) -> subprocess.Popen[bytes]:
    """Start Python, and wait until it says something."""
    found = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert found.stdout is not None
    found.stdout.readline()
    return found


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that would like a whole processor."""
    found = python(BUSY)
    yield found
    end(found)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def needs(controller: str) -> pytest.MarkDecorator:
    """Skip where no group with this controller can be made, with the reason."""
    reason = cgroups.unavailable(controller)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


def groups_left() -> list[Path]:
    """Find groups of ours, whoever made them in this process."""
    found = []
    for controller in ("memory", "cpu", "freezer"):
        where = cgroups.hierarchy(controller)
        if where is not None:
            found += cgroups.home(where, os.getpid()).glob(f"blackstart-{os.getpid()}-*")
    return found


def helpers_left() -> list[int]:
    """Find helpers that are children of this process."""
    found = []
    for one in procs.everybody():
        if one.ppid == os.getpid() and not one.dead:
            words = Path(f"/proc/{one.pid}/cmdline").read_bytes()
            found += [one.pid] if b"hog.py" in words or b"duty.py" in words else []
    return found


async def hold(
    ctx: Any, kind: str, who: str, components: tuple[str, ...] = ("v",), **parameters: Any
) -> tuple[Receipt, Witness]:
    """Inject, hear the witness, and have it taken back by us, or by the guardian alone."""
    fault: Any = registry.make(kind)
    step = FaultStep(kind=kind, components=components, parameters=parameters)
    assert fault.unavailable(ctx.manifest, step) is None
    if hasattr(fault, "aim"):
        await fault.aim(ctx, step)
    receipt = await fault.inject(ctx, step)
    witness = await fault.witness(ctx, receipt)
    if who == "we":
        await fault.revert(ctx, receipt)
        assert groups_left() == helpers_left() == []
    ctx.undo()
    assert groups_left() == helpers_left() == []
    ctx.undo()
    await fault.revert(ctx, receipt)
    return receipt, witness


BOTH = pytest.mark.parametrize("who", ["we", "the guardian"])


@needs("memory")
@BOTH
def test_the_kernel_kills_the_component_for_want_of_memory(tmp_path: Path, who: str) -> None:
    """The group counts an OOM kill, the component dies by SIGKILL, its neighbour lives; the group is gone."""
    victim, neighbour = python(BUSY), python(BUSY)
    try:
        ctx = Context({"v": victim, "n": neighbour}, folder=tmp_path)
        receipt, witness = asyncio.run(hold(ctx, "oom", who, limit_mb=32))
        assert witness.bit is True
        assert receipt.mechanism.startswith("OOM kill in a memory cgroup")
        assert witness.evidence["oom_kills"]["v"] >= 1  # a companion may follow before it is ended
        assert victim.wait() == -signal.SIGKILL
        assert neighbour.poll() is None
        assert receipt.uncertainty_ns < 1_000_000_000
    finally:
        end(victim)
        end(neighbour)


@needs("memory")
def test_a_kernel_that_does_not_kill_is_no_fault(
    tmp_path: Path, busy: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the group never fills, it is an error; the component lives, is at home, has its score back."""
    monkeypatch.setattr("blackstart.faults.oom._KILL_LIMIT_S", 0.3)
    monkeypatch.setattr("blackstart.faults.oom._limits", lambda _where, _limit: {})
    score = Path(f"/proc/{busy.pid}/oom_score_adj")
    before = score.read_text()
    ctx: Any = Context({"v": busy}, folder=tmp_path)
    with pytest.raises(FaultError, match="did not kill"):
        asyncio.run(hold(ctx, "oom", "we", limit_mb=32))
    ctx.undo()
    assert groups_left() == helpers_left() == []
    assert busy.poll() is None
    assert score.read_text() == before


def test_without_a_group_allocations_fail_and_it_is_named_so(tmp_path: Path) -> None:
    """The address space ends where it is: who goes on allocating dies of it, and it is called no OOM kill."""
    victim = python(GROWING)
    try:
        ctx = Context({"v": victim}, folder=tmp_path)
        receipt, witness = asyncio.run(hold(ctx, "oom", "we", mechanism="rlimit"))
        assert "no OOM kill" in receipt.mechanism
        assert witness.bit is True
        assert victim.wait() == 1
    finally:
        end(victim)


def test_nobody_can_tell_of_a_limit_that_killed_nobody(
    tmp_path: Path, busy: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that allocates nothing lives on: the witness knows nothing, and the limit goes."""
    monkeypatch.setattr("blackstart.faults.oom._DEATH_LIMIT_S", 0.3)
    file = Path(f"/proc/{busy.pid}/limits")
    before = file.read_text()
    ctx = Context({"v": busy}, folder=tmp_path)
    _, witness = asyncio.run(hold(ctx, "oom", "the guardian", mechanism="rlimit"))
    assert witness.bit is None
    assert file.read_text() == before


@BOTH
def test_a_companion_holds_memory_of_the_host(
    tmp_path: Path, busy: subprocess.Popen[bytes], who: str
) -> None:
    """It holds what was said, never more than the bound, and gives it back."""
    ctx = Context({"v": busy}, folder=tmp_path)
    receipt, witness = asyncio.run(hold(ctx, "memory_pressure", who, (), limit_mb=64))
    assert witness.bit is True
    assert receipt.data["size"] == 64 * 2**20
    assert all(62 * 2**20 <= held < 90 * 2**20 for held in witness.evidence["held_bytes"].values())


def test_the_host_is_never_endangered(tmp_path: Path, busy: subprocess.Popen[bytes]) -> None:
    """Whoever asks for all but everything is refused with the reason."""
    ctx = Context({"v": busy}, folder=tmp_path)
    with pytest.raises(FaultError, match="would leave the host less than"):
        asyncio.run(hold(ctx, "memory_pressure", "we", (), share=0.999, limit_mb=2**30))
    assert helpers_left() == []


@needs("memory")
@BOTH
def test_a_component_shares_a_small_group_with_a_companion(
    tmp_path: Path, busy: subprocess.Popen[bytes], who: str
) -> None:
    """The group is as full as was said while it lasts, and the component is at home and alive afterwards."""
    where: Any = cgroups.hierarchy("memory")
    home = cgroups.home(where, busy.pid)
    ctx = Context({"v": busy}, folder=tmp_path)
    _, witness = asyncio.run(hold(ctx, "memory_pressure", who, limit_mb=64, share=0.8))
    assert witness.bit is True
    usage = witness.evidence["groups"]["v"]
    assert int(usage.get("memory.usage_in_bytes") or usage["memory.current"]) >= 0.7 * 64 * 2**20
    assert cgroups.home(where, busy.pid) == home
    assert busy.poll() is None


@needs("cpu")
@BOTH
def test_a_quota_holds_the_component_back(tmp_path: Path, busy: subprocess.Popen[bytes], who: str) -> None:
    """The kernel counts how often it was held back; afterwards it is at home and as fast as before."""
    where: Any = cgroups.hierarchy("cpu")
    home = cgroups.home(where, busy.pid)
    ctx = Context({"v": busy}, folder=tmp_path)
    receipt, witness = asyncio.run(hold(ctx, "cpu_quota", who, percent=10, period_ms=20))
    assert receipt.mechanism.endswith("10 % of one processor")
    assert witness.bit is True
    assert witness.evidence["v"]["cpu_stat"]["nr_throttled"] >= 1
    assert cgroups.home(where, busy.pid) == home


@needs("cpu")
def test_a_quota_that_is_enough_did_not_bite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that needs less than its quota is not hurt, and the witness says so."""
    monkeypatch.setattr("blackstart.faults.cpu_quota._WITNESS_LIMIT_NS", 300_000_000)
    with subprocess.Popen(["sleep", "600"]) as idle:
        _, witness = asyncio.run(hold(Context({"v": idle}, folder=tmp_path), "cpu_quota", "we", percent=50))
        idle.kill()
    assert witness.bit is False


def test_without_a_group_it_stands_still_by_turns(tmp_path: Path, busy: subprocess.Popen[bytes]) -> None:
    """The other mechanism bites, too, and is named."""
    ctx = Context({"v": busy}, folder=tmp_path)
    receipt, witness = asyncio.run(hold(ctx, "cpu_quota", "we", mechanism="duty", percent=25, period_ms=40))
    assert receipt.fault == "cpu_quota"
    assert receipt.mechanism == "SIGSTOP and SIGCONT by turns: runs 10 of every 40 ms"
    assert witness.bit is True


@needs("cpu")
@BOTH
def test_stress_makes_the_component_wait_for_a_processor(tmp_path: Path, who: str) -> None:
    """At the least weight it gets much less of the time that it wants than before."""
    victim = python(RISING)
    try:
        time.sleep(0.1)
        ctx = Context({"v": victim}, folder=tmp_path)
        receipt, witness = asyncio.run(hold(ctx, "cpu_stress", who))
        assert "least weight" in receipt.mechanism
        assert witness.bit is True, witness
        assert witness.evidence["v"]["got"] < 0.75 * witness.evidence["v"]["usually_got"]
    finally:
        end(victim)


@needs("cpu")
def test_stress_at_a_weight_leaves_the_component_some(tmp_path: Path, busy: subprocess.Popen[bytes]) -> None:
    """It gets less than before, and more than the hundredth that the least weight leaves."""
    ctx = Context({"v": busy}, folder=tmp_path)
    receipt, witness = asyncio.run(hold(ctx, "cpu_stress", "we", weight=15))
    assert "at weight 15" in receipt.mechanism
    assert witness.bit is True, witness
    assert witness.evidence["v"]["got"] > 0.03


@pytest.mark.parametrize("weight", [0, 10_001, 2.5, "much", True])
def test_a_weight_that_cannot_be_is_refused_beforehand(tmp_path: Path, weight: object) -> None:
    """Named before anything is started, with what it may be."""
    step = FaultStep(kind="cpu_stress", parameters={"weight": weight, "mechanism": "plain"})
    manifest = Context({}, folder=tmp_path).manifest
    assert "from 1 to 10000" in str(registry.make("cpu_stress").unavailable(manifest, step))


@needs("cpu")
def test_who_wants_no_processor_is_not_hurt(tmp_path: Path) -> None:
    """A process that sleeps lost nothing: the witness says that the stress did not bite."""
    with subprocess.Popen(["sleep", "600"]) as idle:
        _, witness = asyncio.run(hold(Context({"v": idle}, folder=tmp_path), "cpu_stress", "we", workers=1))
        idle.kill()
    assert witness.bit is False


def test_plain_stress_burns_processors_and_ends(tmp_path: Path, busy: subprocess.Popen[bytes]) -> None:
    """Without components the hogs themselves are measured."""
    ctx = Context({"v": busy}, folder=tmp_path)
    receipt, witness = asyncio.run(hold(ctx, "cpu_stress", "we", (), workers=1))
    assert receipt.mechanism == "1 busy processes, plain"
    assert witness.bit is True
    assert witness.evidence["hogs_run"] > 0.1


@pytest.mark.parametrize(
    ("before", "during", "bit"),
    [
        ([0.9], 0.2, True),
        ([0.9], 0.8, False),
        ([0.1, 0.1, 0.9], 0.2, True),  # others starved it at first: the look that counts is the calm one
        ([0.1] * 10, 0.05, True),
        ([0.1] * 10, 0.1, None),
    ],
)
def test_a_host_that_starves_the_component_is_not_taken_for_a_stress_without_effect(
    tmp_path: Path,
    busy: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: list[float],
    during: float,
    bit: bool | None,
) -> None:
    """What it usually gets is what it got in a calm moment; without one, no less proves nothing."""
    shares, total = iter([*before, during]), Fare()
    looks = 0

    def fare(pid: int) -> Fare:
        """Every second time that it is asked, a look at the component is over: it wanted 0.1 s more."""
        nonlocal total, looks
        if pid != busy.pid:
            return Fare(run_ns=time.monotonic_ns())
        looks += 1
        if looks % 2 == 0:
            got = next(shares)
            total = Fare(total.run_ns + int(got * 1e8), total.waited_ns + int((1 - got) * 1e8))
        return total

    ctx, fault = Context({"v": busy}, folder=tmp_path), registry.make("cpu_stress")
    step = FaultStep(kind="cpu_stress", components=("v",), parameters={"workers": 1, "mechanism": "plain"})

    async def play() -> Witness:
        await fault.aim(ctx, step)
        with monkeypatch.context() as patched:
            patched.setattr(schedule, "fare", lambda _pid: total)
            receipt = await fault.inject(ctx, step)
        witness = await fault.witness(ctx, receipt)
        await fault.revert(ctx, receipt)
        return witness

    monkeypatch.setattr(schedule, "fare", fare)
    witness = asyncio.run(play())
    ctx.undo()
    assert witness.bit is bit, witness
    assert witness.evidence["starved_before"] == ([] if before[-1] > 0.5 else ["v"])
    assert list(shares) == []


OWNER = """
import asyncio, sys
sys.path[:0] = PATHS
import test_resource_faults as t
async def main():
    victim = t.python(t.BUSY)
    ctx = t.Context({"v": victim}, folder=t.Path("."))
    fault = t.registry.make("cpu_stress")
    receipt = await fault.inject(ctx, t.FaultStep(kind="cpu_stress", parameters={"workers": 2}))
    print(*[one.arguments["pid"] for one in receipt.undo], victim.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_hogs_die_with_their_owner(tmp_path: Path) -> None:
    """The owner is killed by SIGKILL: no hog burns on, guardian or not."""
    code = f"PATHS = {[entry for entry in sys.path if 'real' in entry]!r}{OWNER}"
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path)
    assert owner.stdout is not None
    *hogs, victim = map(int, owner.stdout.readline().split())
    try:
        assert len(hogs) == 2
        owner.kill()
        owner.wait()
        deadline = time.monotonic() + 10
        while any((found := procs.stat(pid)) and not found.dead for pid in hogs):
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        end(owner)
        os.kill(victim, signal.SIGKILL)


AS_USER = """
import asyncio, sys
sys.path.insert(0, FAULTS)
import test_resource_faults as t
for kind, components, parameters in (
    ("oom", ("v",), {}), ("cpu_quota", ("v",), {"percent": 25, "period_ms": 40}),
    ("cpu_stress", (), {"workers": 1}), ("memory_pressure", (), {"limit_mb": 32}),
):
    victim = t.python(t.GROWING if kind == "oom" else t.BUSY)
    ctx = t.Context({"v": victim}, folder=t.Path.cwd())
    receipt, witness = asyncio.run(t.hold(ctx, kind, "we", components, **parameters))
    print(kind, witness.bit, receipt.mechanism)
    t.end(victim)
print(t.registry.make("oom").unavailable(ctx.manifest, t.FaultStep(
    kind="oom", components=("v",), parameters={"mechanism": "cgroup"})))
"""


def test_an_ordinary_user_gets_the_next_best_mechanism_by_its_name() -> None:
    """Everything bites without privilege, and neither an OOM kill nor a quota is claimed that was none."""
    said = ordinary_user.run(f"FAULTS = {str(Path(__file__).parent)!r}{AS_USER}", needs="pytest, msgspec")
    lines = said.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        [kind, "True"] for kind in ("oom", "cpu_quota", "cpu_stress", "memory_pressure")
    ]
    if "cannot make a cgroup" in lines[4]:
        assert "no OOM kill" in lines[0]
        assert "SIGSTOP and SIGCONT by turns" in lines[1]
        assert "root is needed" in lines[4]


PARENT = """
import os, sys, time
print(1, flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.001)
if (child := os.fork()) == 0:
    time.sleep(600)
with open(sys.argv[1] + ".born", "w") as file:
    file.write(str(child) + "\\n")
time.sleep(600)
"""


@pytest.mark.parametrize("parent_lives", [True, False])
@pytest.mark.parametrize("mechanism", ["limit", "oom_score"])
def test_who_is_born_under_a_limit_gets_it_lifted_too(
    tmp_path: Path, mechanism: str, *, parent_lives: bool
) -> None:
    """A child inherits what the fault had set; it gets back what its parent had before."""
    sign, born = tmp_path / "now", tmp_path / "now.born"
    command = [sys.executable, "-c", PARENT, str(sign)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    found, child = procs.stat(parent.pid), None
    assert found is not None
    ref = ProcessRef(found.pid, found.start_ticks)
    name = {"limit": "limits", "oom_score": "oom_score_adj"}[mechanism]
    before = Path(f"/proc/{parent.pid}/{name}").read_text()
    try:
        if mechanism == "limit":
            one = limits.undo("v", ref, resource.RLIMIT_NOFILE, to=77)
            resource.prlimit(parent.pid, resource.RLIMIT_NOFILE, (77, one.arguments["hard"]))
        else:
            one = limits.oom_score("v", ref, to=1000)
            Path(f"/proc/{parent.pid}/oom_score_adj").write_text("1000")
        sign.touch()
        while not born.exists() or not born.read_text().endswith("\n"):
            time.sleep(0.002)
        child = procs.stat(int(born.read_text()))
        assert child is not None
        assert Path(f"/proc/{child.pid}/{name}").read_text() != before
        if not parent_lives:
            parent.kill()
            parent.wait()
        verified, evidence = begin(one.action, one.arguments, "-")()
        assert verified, evidence
        assert Path(f"/proc/{child.pid}/{name}").read_text() == before
    finally:
        if child is not None:
            procs.send(child, signal.SIGKILL)
        end(parent)
