"""Damaged data: real files, real processes, the guardian's verbs that put the old bytes back."""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine import verbs
from blackstart.engine.clocks import SystemClock
from blackstart.errors import FaultError
from blackstart.faults import damage, registry
from blackstart.host import bits, memory, procs
from blackstart.model.data import Region
from blackstart.model.fault import ProcessRef
from blackstart.model.manifest import Component, Data, Manifest, Process
from blackstart.model.scenario import FaultStep
from blackstart.target import data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blackstart.model.fault import Receipt, Undo, Witness

GLUE = """
async def records(settings):
    path = settings["log"]
    return [{"path": path, "offset": 10 * n, "length": 10, "name": f"record {n}"} for n in range(5)]
"""
KEEPER = """
import subprocess, sys
print(1, flush=True)
while True:
    child = subprocess.Popen(["sleep", "600"])
    open(sys.argv[1], "w").write(str(child.pid))
    child.wait()
"""
HOLDER = """
import sys, time
held = bytearray(b"position-of-ALFA=") + bytearray(b"000100")
print(1, flush=True)
while True:
    time.sleep(0.01)
    open(sys.argv[1], "w").write(bytes(held[-6:]).decode("latin1"))
"""


class Context:
    """Implements FaultContext and a target with data in `folder`; `places` are pid files or processes."""

    name = "here"

    def __init__(
        self, folder: Path, where: dict[str, Data], pids: dict[str, Path | int] | None = None
    ) -> None:
        self.folder, self.pids = folder, pids or {}
        (folder / "glue.py").write_text(GLUE)
        components = {name: Component(pid_file="x", supervisor="keeper") for name in self.pids}
        self.manifest = Manifest(
            schema=1, name="here", glue="glue.py", folder=str(folder), data=where, components=components
        )
        self.clock = SystemClock()
        self.plan: Any = SimpleNamespace(seed=7, trial_id="X")
        self.undos: list[Undo] = []
        self.damaged_at_protect: list[bool] = []

    @property
    def target(self) -> Any:
        """This very object."""
        return self

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def protect(self, undos: Iterable[Undo]) -> None:
        """Note the undos."""
        self.undos += undos

    async def regions(self, name: str, *, place: str = "") -> Sequence[Region]:
        """Let the target's own code find them."""
        return await data.regions(self, name, place)  # type: ignore[arg-type]

    def expand(self, text: str, **_where: str) -> str:
        """Replace the run folder."""
        return text.replace("{run}", str(self.folder))

    def settings(self) -> dict[str, Any]:
        """Tell the glue where the log is."""
        return {"log": str(self.folder / "log")}

    async def process(self, component: str) -> ProcessRef:
        """Look the process up."""
        known = self.pids[component]
        pid = known if isinstance(known, int) else int(known.read_text())
        found = procs.stat(pid)
        assert found is not None
        return ProcessRef(pid, found.start_ticks)


def carry_out(ctx: Any, kind: str, *components: str, **parameters: Any) -> tuple[Receipt, Witness]:
    """Inject, hear the witness, take back."""

    async def main() -> tuple[Receipt, Witness]:
        fault: Any = registry.make(kind)
        step = FaultStep(kind=kind, components=components, parameters=parameters)
        assert fault.unavailable(ctx.manifest, step) is None
        receipt = await fault.inject(ctx, step)
        witness = await fault.witness(ctx, receipt)
        await fault.revert(ctx, receipt)
        await fault.revert(ctx, receipt)
        return receipt, witness

    return asyncio.run(main())


def take_back(ctx: Context) -> list[tuple[bool | None, dict[str, Any]]]:
    """Do what the guardian would."""
    return [verbs.begin(one.action, one.arguments, str(ctx.folder))() for one in ctx.undos]


def files(folder: Path, *names: str, size: int = 9000) -> list[Path]:
    """Write files, each a little later than the one before."""
    made = [folder / name for name in names]
    for number, path in enumerate(made):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(size))
        os.utime(path, ns=(0, number))
    return made


def test_a_hundred_bits_of_the_newest_file_turn_and_come_back(tmp_path: Path) -> None:
    """Exactly 100 bits differ, in the newest file alone, protected before; the guardian puts them back."""
    old, new = files(tmp_path, "1.ckpt", "2.ckpt")
    ctx, before = Context(tmp_path, {"checkpoint": Data(files="{run}/*.ckpt")}), new.read_bytes()
    kept = old.read_bytes()
    receipt, witness = carry_out(ctx, "flip_file_bits", data="checkpoint", bits=100)
    assert bits.differing(before, new.read_bytes()) == 100
    assert old.read_bytes() == kept
    assert witness.bit is True
    assert witness.evidence["damage"][0]["bits"] == 100
    assert receipt.undo == (), "restored before the final read, damage would look healed"
    assert [verified for verified, _ in take_back(ctx)] == [True]
    assert new.read_bytes() == before
    assert [verified for verified, _ in take_back(ctx)] == [True], "twice does no harm"


def test_saved_bytes_that_a_crash_took_restore_nothing(tmp_path: Path) -> None:
    """An empty file is not what was there before: the damage stays, and is told."""
    (path,) = files(tmp_path, "1.ckpt")
    ctx = Context(tmp_path, {"checkpoint": Data(files="{run}/*.ckpt")})
    carry_out(ctx, "flip_file_bits", data="checkpoint")
    damaged = path.read_bytes()
    (saved,) = (tmp_path / "fault").iterdir()
    saved.write_bytes(b"")
    ((verified, evidence),) = take_back(ctx)
    assert (verified, path.read_bytes()) == (False, damaged)
    assert str(saved) in evidence["error"]


def test_the_old_bytes_are_on_the_disk_before_the_guardian_hears_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The damage is synced: after a crash of the host what takes it back must be there, too."""
    files(tmp_path, "1.ckpt")
    synced: list[str] = []
    real = os.fsync

    def noted(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", noted)
    told: list[list[str]] = []

    class Watched(Context):
        async def protect(self, undos: Iterable[Undo]) -> None:
            await super().protect(undos)
            told.append(list(synced))

    carry_out(
        Watched(tmp_path, {"checkpoint": Data(files="{run}/*.ckpt")}), "flip_file_bits", data="checkpoint"
    )
    folder = tmp_path / "fault"
    assert told == [[str(next(folder.iterdir())), str(folder)]]


def test_the_same_seed_turns_the_same_bits(tmp_path: Path) -> None:
    """Replay damages in the same places."""
    found = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        path = files(folder, "1.ckpt")[0]
        carry_out(Context(folder, {"c": Data(files="{run}/*.ckpt")}), "flip_file_bits", data="c", bits=5)
        found.append(path.read_bytes())
    assert found[0] == found[1]


def test_a_large_file_is_not_held_for_a_few_bits(tmp_path: Path) -> None:
    """Chaos for hours: the checkpoint grows, the memory of who damages it does not; it comes back whole."""
    path = files(tmp_path, "1.ckpt", size=64_000_000)[0]
    ctx, original = Context(tmp_path, {"c": Data(files="{run}/*.ckpt")}), path.read_bytes()
    tracemalloc.start()
    _, witness = carry_out(ctx, "flip_file_bits", data="c", bits=100)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8_000_000
    assert witness.bit is True
    assert sum(one["bits"] for one in witness.evidence["damage"]) == 100
    assert bits.differing(original, path.read_bytes()) == 100
    assert all(verified for verified, _ in take_back(ctx))
    assert path.read_bytes() == original


def test_only_the_bytes_of_the_bits_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the target writes elsewhere in the file at that moment stays; no whole file is held."""
    path = files(tmp_path, "1.ckpt", size=1_000_000)[0]
    original, began = bits.write, path.read_bytes()

    def write(where: str, offset: int, data: bytes, *, sync: bool = True) -> None:
        with path.open("r+b") as file:  # the target, just before us
            file.write(b"new head")
        original(where, offset, data, sync=sync)

    with monkeypatch.context() as patch:
        patch.setattr(bits, "write", write)
        carry_out(
            Context(tmp_path, {"c": Data(files="{run}/*.ckpt")}), "flip_file_bits", data="c", bit=4_000_003
        )
    now = path.read_bytes()
    assert now[:8] == b"new head"
    assert bits.differing(began[8:], now[8:]) == 1
    assert sum(kept.stat().st_size for kept in (tmp_path / "fault").iterdir()) == 1


def test_a_new_file_with_the_same_byte_by_chance_is_left_alone(tmp_path: Path) -> None:
    """That one byte looks like the damage does not make another file ours: what lies around counts too."""
    path = files(tmp_path, "1.ckpt")[0]
    ctx = Context(tmp_path, {"c": Data(files="{run}/*.ckpt")})
    carry_out(ctx, "flip_file_bits", data="c", bit=800)
    damaged = path.read_bytes()
    path.write_bytes(b"another" + damaged[7:])
    (outcome,) = take_back(ctx)
    assert outcome[0] is True
    assert "left" in outcome[1]
    assert path.read_bytes()[7:] == damaged[7:]


@pytest.mark.parametrize("healed", ["rewritten", "removed"])
def test_what_the_target_healed_is_left_alone(tmp_path: Path, healed: str) -> None:
    """A file rewritten or removed since is not written over, and that counts as taken back."""
    path = files(tmp_path, "1.ckpt")[0]
    ctx = Context(tmp_path, {"c": Data(files="{run}/*.ckpt")})
    carry_out(ctx, "flip_file_bits", data="c", bits=3)
    if healed == "rewritten":
        path.write_bytes(b"healed" * 2000)
    else:
        path.unlink()
    (outcome,) = take_back(ctx)
    assert outcome[0] is True
    assert "left" in outcome[1]
    assert path.read_bytes() == b"healed" * 2000 if healed == "rewritten" else not path.exists()


def test_the_newest_file_of_each_folder_is_hit(tmp_path: Path) -> None:
    """Two engines keep checkpoints of their own: each loses its newest."""
    made = files(tmp_path, "a/1", "a/2", "b/3", "b/4")
    before = [path.read_bytes() for path in made]
    ctx = Context(tmp_path, {"c": Data(files="{run}/[ab]/*", pick="newest-in-each-folder")})
    carry_out(ctx, "flip_file_bits", data="c")
    turned = [bits.differing(old, path.read_bytes()) for old, path in zip(before, made, strict=True)]
    assert turned == [0, 1, 0, 1]


def test_nothing_to_damage_is_an_error(tmp_path: Path) -> None:
    """A glob that finds nothing is no fault that bit."""
    with pytest.raises(FaultError, match="nothing there"):
        carry_out(Context(tmp_path, {"c": Data(files="{run}/*.ckpt")}), "flip_file_bits", data="c")


@pytest.mark.parametrize("seed", range(5))
def test_a_log_is_cut_in_the_middle_of_its_last_record(tmp_path: Path, seed: int) -> None:
    """Some of the record stays and some goes; all records before it stay; it comes back."""
    log = tmp_path / "log"
    log.write_bytes(bytes(range(50)) + bytes(30))
    ctx = Context(tmp_path, {"journal": Data(glue="records")})
    ctx.plan.seed = seed
    before = log.read_bytes()
    receipt, witness = carry_out(ctx, "truncate_file", data="journal")
    assert 40 < log.stat().st_size < 50
    assert log.read_bytes() == before[: log.stat().st_size]
    assert witness.bit is True
    assert witness.evidence["damage"][0]["place"] == "in record 4"
    assert receipt.undo == ()
    assert take_back(ctx)[0][0] is True
    assert log.read_bytes() == before


def test_a_log_that_went_on_is_not_restored(tmp_path: Path) -> None:
    """What was appended after the cut stays."""
    log = tmp_path / "log"
    log.write_text("one\ntwo\nthree\n")
    ctx = Context(tmp_path, {"log": Data(files="{run}/log", records="lines")})
    carry_out(ctx, "truncate_file", data="log")
    assert log.read_text().startswith("one\ntwo\nt")
    with log.open("a") as file:
        file.write("\nfour\n")
    after = log.read_text()
    assert take_back(ctx)[0][0] is True
    assert log.read_text() == after


def test_bytes_are_cut_from_the_end(tmp_path: Path) -> None:
    """`bytes = 7` leaves the file seven bytes shorter."""
    log = files(tmp_path, "log", size=100)[0]
    carry_out(Context(tmp_path, {"log": Data(files="{run}/log")}), "truncate_file", data="log", bytes=7)
    assert log.stat().st_size == 93


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Start a supervisor that starts its child again at once, and writes the child's pid."""
    pid_file = tmp_path / "child.pid"
    argv = (sys.executable, "-c", KEEPER, str(pid_file))
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    until(lambda: pid_file.exists() and pid_file.read_text() != "")
    yield pid_file, process
    process.kill()
    process.wait()
    process.stdout.close()
    child = procs.stat(int(pid_file.read_text()))
    if child is not None:
        procs.send(child, 9)


def until(condition: Any, limit_s: float = 10.0) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "never came"
        time.sleep(0.002)


def test_damage_between_death_and_restart(
    tmp_path: Path, keeper: tuple[Path, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While bits turn, the child is dead and its supervisor stands still; then it starts a new one."""
    pid_file, supervisor = keeper
    path = files(tmp_path, "1.ckpt")[0]
    old = int(pid_file.read_text())
    ctx = Context(tmp_path, {"c": Data(files="{run}/*.ckpt")}, {"child": pid_file, "keeper": supervisor.pid})
    ctx.manifest.components["keeper"] = Component(process="keeper")
    states: list[str] = []
    write = bits.write

    def spy(*args: Any, **kwargs: Any) -> None:
        for pid in (old, supervisor.pid):
            found = procs.stat(pid)
            states.append("gone" if found is None or found.dead else found.state)
        write(*args, **kwargs)

    monkeypatch.setattr(bits, "write", spy)
    before = path.read_bytes()
    receipt, witness = carry_out(ctx, "flip_file_bits", "child", data="c", bits=100, between=True)
    assert states == ["gone", "T"]
    assert bits.differing(before, path.read_bytes()) == 100
    assert witness.bit is True
    assert receipt.data["held"] == ["keeper"]
    assert receipt.processes["child"].pid == old
    assert {one.action for one in receipt.undo} == {"continue"}
    until(lambda: pid_file.read_text() not in ("", str(old)))


def test_without_a_known_supervisor_nobody_stands_between(tmp_path: Path) -> None:
    """The manifest must say who starts a component again, or Blackstart must be the one."""
    manifest = Manifest(
        schema=1,
        name="x",
        processes={"ours": Process(command=("x",))},
        components={"theirs": Component(pid_file="x"), "ours": Component(process="ours")},
        data={"c": Data(files="*")},
    )
    fault = registry.make("flip_file_bits")
    parameters = {"data": "c", "between": True}

    def why(*components: str) -> str | None:
        step = FaultStep(kind="flip_file_bits", components=components, parameters=parameters)
        return fault.unavailable(manifest, step)

    assert "supervisor" in str(why("theirs"))
    assert why("ours") is None
    assert "needs components" in str(why())


def test_one_bit_of_shared_memory_is_seen_by_who_has_mapped_it(tmp_path: Path) -> None:
    """A mapped table shows the turned bit at once; the guardian turns it back while nobody corrected it."""
    table = tmp_path / "log"
    table.write_bytes(bytes(50))
    ctx = Context(tmp_path, {"positions": Data(glue="records")})
    with table.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        _, witness = carry_out(ctx, "flip_memory_bits", data="positions", place="record 3")
        assert bits.differing(bytes(50), mapped[:]) == 1
        assert bits.differing(bytes(10), mapped[30:40]) == 1
        assert witness.bit is True
        assert take_back(ctx)[0][0] is True
        assert mapped[:] == bytes(50)


@pytest.mark.parametrize(("theirs", "bit"), [(0, True), (2, False)])
def test_what_the_target_writes_beside_the_damage_takes_nothing_back(
    tmp_path: Path, theirs: int, bit: bool
) -> None:
    """A row in use changes all the time; only where it is written over the turned bits are these gone."""
    path = tmp_path / "table"
    path.write_bytes(bytes(4))
    region = Region(path=str(path), offset=0, length=4)
    patch = damage.Patch(region=region, before=bytes(4), after=b"\0\0\x10\0")
    damage.apply([patch])
    bits.write(str(path), theirs, b"\x07")
    (found,) = damage.seen([patch], disk=False)
    assert found["bit"] is bit


def test_a_value_in_another_process_is_found_and_changed(tmp_path: Path) -> None:
    """The process itself reports the changed value; the guardian restores it, unless changed since."""
    told = tmp_path / "told"
    process = subprocess.Popen((sys.executable, "-c", HOLDER, str(told)), stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        until(lambda: told.exists() and told.read_bytes() == b"000100")
        ctx = Context(tmp_path, {}, {"holder": process.pid})
        found = {"value": "position-of-ALFA=000100", "copies": "all", "bit": 8 * 22}
        receipt, witness = carry_out(ctx, "flip_memory_bits", "holder", **found)
        assert witness.bit is True
        assert receipt.mechanism in ("process_vm_writev", "/proc/PID/mem")
        until(lambda: told.read_bytes() == b"000101")
        assert all(verified for verified, _ in take_back(ctx))
        until(lambda: told.read_bytes() == b"000100")
        assert all("left" in evidence for _, evidence in take_back(ctx))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert take_back(ctx)[0] == (True, {"gone": True})


def test_a_value_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    """What is not there cannot be damaged."""
    sleeper = subprocess.Popen(("sleep", "60"))
    ctx = Context(tmp_path, {}, {"sleeper": sleeper.pid})
    try:
        with pytest.raises(FaultError, match="nowhere"):
            carry_out(ctx, "flip_memory_bits", "sleeper", hex=random.Random(3).randbytes(24).hex())
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_value_across_two_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search does not lose what lies on the border of what is read at once."""
    held = bytearray(random.Random(5).randbytes(64))
    monkeypatch.setattr(memory, "_CHUNK", 4096)
    with mmap.mmap(-1, 16384, flags=mmap.MAP_PRIVATE) as area:
        area[4096 - 30 : 4096 + 34] = bytes(held)
        found = memory.find(os.getpid(), bytes(held))
        values = [memory.read(os.getpid(), address, 64) for address in found]
    assert bytes(held) in values
    assert any(address % 4096 == 4096 - 30 for address in found)


def test_memory_that_may_not_be_read_is_not_taken_for_unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is refused has not seen that the damage has gone; who finds no memory there has."""
    own = procs.stat(os.getpid())
    assert own is not None
    arguments = {
        "pid": own.pid,
        "start_ticks": own.start_ticks,
        "address": 4096,
        "before": "00",
        "after": "01",
    }
    verified, evidence = verbs.begin("restore_memory", arguments, "/")()
    assert (verified, set(evidence)) == (True, {"left"}), "nothing is mapped there"

    def refused(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(memory, "read", refused)
    assert verbs.begin("restore_memory", arguments, "/")() == (
        False,
        {"error": "PermissionError: [Errno 13] Permission denied"},
    )


def test_nobody_dies_for_damage_that_finds_no_place(
    tmp_path: Path, keeper: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    """There is no checkpoint yet: that is seen before the kill, not after it."""
    pid_file, supervisor = keeper
    ctx = Context(tmp_path, {"c": Data(files="{run}/*.ckpt")}, {"child": pid_file, "keeper": supervisor.pid})
    ctx.manifest.components["keeper"] = Component(process="keeper")
    alive = int(pid_file.read_text())
    with pytest.raises(FaultError, match="nothing there to damage"):
        carry_out(ctx, "flip_file_bits", "child", data="c", between=True)
    time.sleep(0.05)
    assert int(pid_file.read_text()) == alive
    assert procs.stat(alive) is not None
    assert ctx.undos == []
