"""Two sessions over a link that loses bytes and breaks, with owners that crash."""

import os
import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixsession import (
    Deliver,
    Disconnect,
    Effect,
    FileStore,
    Message,
    Now,
    Role,
    Session,
    SessionConfig,
    Transmit,
)

SECOND = 1_000_000_000


class Side:
    """An owner with a durable record of what it processed, as a firm or an exchange would keep it."""

    def __init__(self, config: SessionConfig, path: Path) -> None:
        self.config = config
        self.path = path
        self.processed: dict[int, str] = {}
        self.sent: list[str] = []
        self.wire = bytearray()
        self.start()

    def start(self) -> None:
        """Begin, or begin again after a crash."""
        self.store = FileStore(self.path, fsync="batch")
        self.session = Session(self.config, self.store)

    def crash(self, *, power_loss: bool, rng: random.Random) -> None:
        """Die as a process does; with a power loss, part of what was not forced to the disk is gone too."""
        durable, end = self.store._durable, self.store._end
        os.close(self.store._fd)
        if power_loss:
            os.truncate(self.path, rng.randint(durable, end))
        self.start()


class World:
    """Both sides, the link between them and one clock."""

    def __init__(self, folder: Path, rng: random.Random, **settings_: object) -> None:
        self.rng = rng
        self.mono_ns = SECOND
        common = {"heartbeat_s": 2, "request_again_s": 3.0, "logon_timeout_s": 3.0, **settings_}
        self.sides = [
            Side(SessionConfig(sender="A", target="B", **common), folder / "a"),
            Side(SessionConfig(sender="B", target="A", role=Role.INITIATOR, **common), folder / "b"),
        ]
        self.count = 0

    def now(self) -> Now:
        """Give the simulated instant."""
        return Now(self.mono_ns, 1_700_000_000 * SECOND + self.mono_ns)

    def carry_out(self, side: Side, effects: list[Effect], *, commit: bool = True) -> None:
        """Do what the session says, as an owner has to."""
        side.store.sync()
        for effect in effects:
            if isinstance(effect, Transmit):
                side.wire += effect.data
            elif isinstance(effect, Deliver):
                text = effect.message.require(58)
                before = side.processed.setdefault(effect.seq_num, text)
                assert before == text, "one number, two messages"
                assert effect.seq_num >= max(side.processed) or effect.poss_dup, (
                    "an old number as if it were new"
                )
            elif isinstance(effect, Disconnect):
                self.cut()
        if commit:
            side.session.commit(self.now())

    def cut(self) -> None:
        """Break the connection; what is on the way is lost."""
        for side in self.sides:
            side.wire.clear()
            side.session.disconnected(self.now())

    def connect(self) -> None:
        """Make a new connection."""
        self.cut()
        for side in self.sides:
            self.carry_out(side, side.session.connected(self.now()))

    def send(self, which: int) -> None:
        """Have one side send the next message."""
        side = self.sides[which]
        self.count += 1
        text = f"m{self.count}"
        side.sent.append(text)
        self.carry_out(side, side.session.send(Message.of("B", {148: "x", 58: text}), self.now()))

    def move(self, which: int, size: int, *, commit: bool = True) -> None:
        """Let bytes from one side reach the other."""
        source, sink = self.sides[which], self.sides[1 - which]
        data = bytes(source.wire[:size])
        del source.wire[:size]
        if data:
            self.carry_out(sink, sink.session.received(data, self.now()), commit=commit)

    def pass_time(self, seconds: float) -> None:
        """Let time pass for both."""
        end = self.mono_ns + int(seconds * SECOND)
        self.mono_ns = end
        for side in self.sides:
            self.carry_out(side, side.session.tick(self.now()))

    def crash(self, which: int, *, power_loss: bool) -> None:
        """Kill one side's process."""
        self.cut()
        self.sides[which].crash(power_loss=power_loss, rng=self.rng)

    def whole(self) -> bool:
        """Whether each side has processed just what the other sent, in order."""
        a, b = self.sides
        return all(
            list(dict(sorted(to.processed.items())).values()) == of.sent for of, to in ((a, b), (b, a))
        )

    def heal(self) -> None:
        """Give them a link that works, and time."""
        for _ in range(60):
            if not all(side.session.is_connected for side in self.sides):
                self.connect()
            for _ in range(50):
                if not any(side.wire for side in self.sides):
                    break
                self.move(0, 1 << 20)
                self.move(1, 1 << 20)
            if self.whole():
                return
            self.pass_time(1)


def play(world: World, steps: list[tuple[str, int, int]]) -> None:
    """Carry out the steps, whatever comes of it."""
    world.connect()
    for word, which, size in steps:
        if word == "send":
            world.send(which)
        elif word == "move":
            world.move(which, size)
        elif word == "move, no commit":
            world.move(which, size, commit=False)
        elif word == "lose":
            del world.sides[which].wire[:size]
        elif word == "cut":
            world.cut()
        elif word == "connect":
            world.connect()
        elif word == "time":
            world.pass_time(size / 100)
        else:
            world.crash(which, power_loss=word == "power loss")


WORDS = (
    ["send"] * 5 + ["move"] * 5 + ["move, no commit", "lose", "cut", "connect", "time", "crash", "power loss"]
)
STEPS = st.lists(
    st.tuples(st.sampled_from(WORDS), st.integers(0, 1), st.sampled_from([1, 37, 150, 400, 5000])),
    max_size=60,
)
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(steps: list[tuple[str, int, int]], seed: int, **settings_: object) -> None:
    """Play the steps, heal the link, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), random.Random(seed), **settings_)
        try:
            play(world, steps)
            world.heal()
            assert world.whole(), [(side.sent, side.processed) for side in world.sides]
        finally:
            for side in world.sides:
                side.store.close()


@FEW
@given(STEPS, st.integers(0, 1000))
def test_every_message_arrives_in_order_once_per_number(steps: list[tuple[str, int, int]], seed: int) -> None:
    """Whatever is lost, cut or crashed: in the end each side processed what the other sent, in order."""
    check(steps, seed)


@FEW
@given(STEPS, st.integers(0, 1000), st.sampled_from([1, 2, 5]), st.booleans(), st.booleans())
def test_so_it_is_with_slow_replays_pieces_and_789(
    steps: list[tuple[str, int, int]], seed: int, size: int, live: bool, next_expected: bool
) -> None:
    """The same with slow replays, requests in pieces, live messages between or after, and 789."""
    check(
        steps,
        seed,
        resend_batch=size,
        resend_interval_s=0.3,
        request_chunk=size,
        live_during_resend=live,
        next_expected=next_expected,
        last_processed=live,
    )
