"""What scripts against a default acceptor cannot show: settings, the initiator, stores, commits, time."""

import pytest

from fixsession import (
    Deliver,
    Disconnect,
    FixError,
    Gap,
    LoggedOn,
    LoggedOut,
    MemoryStore,
    Message,
    OnReset,
    OverLimit,
    Refusal,
    Role,
    Schedule,
    Session,
    SessionConfig,
    Transmit,
    Warning,  # noqa: A004
)
from fixsession.clock import SECOND_NS, Now
from fixsession.codec import decode
from fixsession.testing.memory import MemoryPeer
from fixsession.testing.player import Player
from fixsession.testing.script import parse_script

LOGON = "connect\nsend A 98=0 108=30 141=Y\nexpect A 34=1\n"
ORDERS = "".join(f"send order\nexpect D 34={number}\n" for number in range(2, 8))


def peer_with(**settings: object) -> MemoryPeer:
    """Make an acceptor with an echo, or an initiator, and these settings."""
    return MemoryPeer(SessionConfig(sender="PAPEREX", target="FIRM", **settings))


def play(text: str, **settings: object) -> MemoryPeer:
    """Play a conversation against such a side."""
    peer = peer_with(**settings)
    Player(peer).play(parse_script("inline", text))
    return peer


def at(second: float) -> Now:
    """Give an instant so many seconds after the start."""
    return Now(int(second * SECOND_NS), 1_700_000_000 * SECOND_NS + int(second * SECOND_NS))


def test_partial_serves_the_first_messages_only() -> None:
    """FIX.md 6: with PARTIAL a request for too much gets its beginning; the rest is asked for again."""
    play(
        f"{LOGON}{ORDERS}send 2 7=2 16=0\nexpect D 34=2 43=Y\nexpect D 34=3\nquiet 1\n"
        "send 2 7=4 16=5\nexpect D 34=4\nexpect D 34=5\nquiet 1",
        max_resend=2,
        over_limit=OverLimit.PARTIAL,
    )


def test_old_messages_are_gap_filled() -> None:
    """FIX.md 6: what is older than the time window is not resent."""
    play(
        "connect\nsend A 98=0 108=0 141=Y\nexpect A\nsend order\nexpect D 34=2\nwait 3700\n"
        "send order\nexpect D 34=3\nsend 2 7=1 16=0\nexpect 4 34=1 36=3\nexpect D 34=3 43=Y",
        resend_window_s=3600.0,
    )


@pytest.mark.parametrize(
    ("refusal", "answer"),
    [
        (Refusal.REJECT, 'expect 3 372=2 "58=ResendRequest refused"'),
        (Refusal.GAP_FILL, "expect 4 34=2 123=Y 36=8"),
        (Refusal.IGNORE, "quiet 1"),
    ],
)
def test_resend_is_refused(refusal: Refusal, answer: str) -> None:
    """FIX.md 6: a resend can be refused in three ways."""
    play(f"{LOGON}{ORDERS}send 2 7=2 16=0\n{answer}", refuse_resend=refusal)


def test_slow_replay_is_mixed_with_live_messages() -> None:
    """FIX.md 6: a slow replay goes out in batches, and a new message overtakes what is still to come."""
    play(
        f"{LOGON}{ORDERS}send 2 7=2 16=5\nexpect D 34=2 43=Y\nexpect D 34=3 43=Y\nsend order\n"
        "expect D 34=8 43=!\n"
        "wait 0.1\nexpect D 34=4 43=Y\nexpect D 34=5 43=Y\nquiet 1",
        resend_batch=2,
    )


def test_slow_replay_can_go_first() -> None:
    """FIX.md 6: or the new message, and the answer to a TestRequest, wait until the replay is through."""
    play(
        f"{LOGON}{ORDERS}send 2 7=2 16=5\nexpect D 34=2 43=Y\nexpect D 34=3 43=Y\nsend order\nsend 1 112=x\n"
        "expect D 34=4 43=Y\nexpect D 34=5 43=Y\nexpect D 34=8 43=!\nexpect 0 34=9 112=x",
        resend_batch=2,
        live_during_resend=False,
    )


def test_what_was_held_behind_a_replay_survives_a_cut() -> None:
    """A message held back when the connection breaks is resent after the next logon."""
    play(
        f"{LOGON}{ORDERS}send 2 7=2 16=5\nexpect D 34=2\nexpect D 34=3\nsend order\ndisconnect\n"
        "connect\nsend A 98=0 108=30\nexpect A 34=9\nsend 2 7=8 16=8\nexpect D 34=8 43=Y",
        resend_batch=2,
        live_during_resend=False,
    )


@pytest.mark.parametrize("policy", OnReset)
def test_messages_missed_before_a_reset(policy: OnReset) -> None:
    """FIX.md 8: what was numbered while nobody was logged on comes anew after a reset, or is dropped."""
    peer = peer_with(on_reset=policy)
    player = Player(peer)
    player.play(parse_script("before", f"{LOGON}send order\nexpect D 34=2\ndisconnect"))
    peer.session.send(Message.of("8", {17: "missed-1"}), peer.now())
    peer.session.send(Message.of("8", {17: "missed-2"}), peer.now())
    came = "expect 8 34=2 17=missed-1 43=!\nexpect 8 34=3 17=missed-2\n" if policy is OnReset.RENUMBER else ""
    player.play(
        parse_script("after", f"connect\nsend A 34=1 98=0 108=30 141=Y\nexpect A 34=1 141=Y\n{came}quiet 1")
    )


def test_what_was_offered_is_not_renumbered() -> None:
    """FIX.md 8: a missed message that was resent meanwhile is not sent again after a later reset."""
    peer = peer_with(on_reset=OnReset.RENUMBER)
    player = Player(peer)
    player.play(parse_script("before", f"{LOGON}disconnect"))
    peer.session.send(Message.of("8", {17: "missed"}), peer.now())
    player.play(
        parse_script(
            "after",
            "connect\nnumber 2\nsend A 98=0 108=30\nexpect A 34=3\nsend 2 7=2 16=2\nexpect 8 34=2 17=missed\n"
            "disconnect\n"
            "connect\nsend A 34=1 98=0 108=30 141=Y\nexpect A 34=1\nquiet 1",
        )
    )


def test_large_gap_is_asked_for_in_pieces() -> None:
    """A gap larger than the other side serves at once is asked for in pieces, the last one to infinity."""
    play(
        f"{LOGON}send 1 34=12 112=x\nexpect 2 7=2 16=5\nsend 4 34=2 43=Y 122=@now 123=Y 36=6\n"
        "expect 2 7=6 16=9\n"
        "send 4 34=6 43=Y 122=@now 123=Y 36=10\nexpect 2 7=10 16=0\nsend 4 34=10 43=Y 122=@now 123=Y 36=12\n"
        "expect 0 112=x",
        request_chunk=4,
    )


def test_gap_is_asked_for_again_after_no_progress() -> None:
    """Heartbeats behind a gap are no progress: the request is repeated after its time."""
    play(
        "connect\nsend A 98=0 108=2 141=Y\nexpect A\nsend 0 34=3\nexpect 2 7=2 16=0\nwait 2\n"
        "send 0 34=4\nwait 2\n"
        "send 0 34=5\nwait 1.5\nexpect 2 7=2 16=0",
        request_again_s=5.0,
    )


def test_second_gap_behind_the_first_gets_its_own_request() -> None:
    """FIX.md 4: one ResendRequest per gap, also where two gaps are open at once."""
    peer = play(
        f"{LOGON}send 1 34=3 112=three\nexpect 2 7=2 16=0\nsend 1 34=5 112=five\n"
        "send 4 34=2 43=Y 122=@now 123=Y 36=3\nexpect 0 112=three\nexpect 2 7=4 16=0\n"
        "send 4 34=4 43=Y 122=@now 123=Y 36=5\nexpect 0 112=five"
    )
    assert [effect for effect in peer.effects if isinstance(effect, Gap)] == [Gap(2, 2), Gap(4, 4)]
    assert peer.session.gap is None


def test_queue_behind_a_gap_is_bounded() -> None:
    """What does not fit into the queue is asked for once the gap is closed."""
    play(
        f"{LOGON}send 1 34=3 112=three\nexpect 2 7=2 16=0\nsend 1 34=4 112=four\nsend 1 34=5 112=five\n"
        "send 4 34=2 43=Y 122=@now 123=Y 36=3\nexpect 0 112=three\nexpect 0 112=four\n"
        "send 1 34=6 112=six\nexpect 2 7=5 16=0",
        max_queue=2,
    )


def test_poss_resend_is_delivered_with_its_flag() -> None:
    """FIX.md 15: PossResend reaches the application, which decides by its own key."""
    peer = play(f"{LOGON}send order 11=K\nexpect D 11=K\nsend order 11=K 97=Y\nquiet 1\nsend order\nexpect D")
    assert [(effect.seq_num, effect.poss_resend) for effect in peer.delivered] == [
        (2, False),
        (3, True),
        (4, False),
    ]


def test_poss_resend_goes_into_the_header() -> None:
    """An application's PossResend stands before the body, as the order of fields demands."""
    session = logged_on_acceptor()
    (sent,) = session.send(Message.of("8", {37: "O", 97: True}), at(1))
    assert isinstance(sent, Transmit)
    assert [tag for tag, _ in decode(sent.data).pairs][6:] == [52, 97, 37, 10]


def logged_on_acceptor(*, heartbeat_s: int = 30, **settings: object) -> Session:
    """Make an acceptor session on which somebody has logged on."""
    session = Session(SessionConfig(sender="PAPEREX", target="FIRM", **settings), MemoryStore())
    partner = Session(
        SessionConfig(sender="FIRM", target="PAPEREX", role=Role.INITIATOR, heartbeat_s=heartbeat_s),
        MemoryStore(),
    )
    session.connected(at(0))
    (hello,) = partner.connected(at(0))
    assert isinstance(hello, Transmit)
    effects = session.received(hello.data, at(0))
    assert effects[1:] == [LoggedOn(reset=False, heartbeat_s=heartbeat_s)]
    session.commit(at(0))
    return session


def test_initiator_logs_on_and_adopts_nothing() -> None:
    """An initiator sends the first Logon with its interval and is logged on when it is answered."""
    peer = play(
        "connect\nexpect A 34=1 49=PAPEREX 56=FIRM 98=0 108=7 141=!\nsend A 98=0 108=7\n"
        "send 1 112=x\nexpect 0 112=x",
        role=Role.INITIATOR,
        heartbeat_s=7,
    )
    assert LoggedOn(reset=False, heartbeat_s=7) in peer.effects


def test_initiator_resets_on_logon() -> None:
    """FIX.md 8: an initiator with `reset_on_logon` sends 141=Y and begins at 1 each time."""
    play(
        "connect\nexpect A 34=1 141=Y\nsend A 98=0 108=5 141=Y\nsend 1 112=x\nexpect 0 34=2\ndisconnect\n"
        "connect\nexpect A 34=1 141=Y\nsend A 34=1 98=0 108=5 141=Y\nsend 1 34=2 112=y\nexpect 0 34=2 112=y",
        role=Role.INITIATOR,
        reset_on_logon=True,
    )


def test_initiator_obeys_an_acceptors_reset() -> None:
    """FIX.md 8: an acceptor that answers 141=Y has both sides begin at 1; the Logons were the 1s."""
    play(
        "connect\nexpect A 34=1\nsend A 98=0 108=5\nsend 1 112=x\nexpect 0 34=2\ndisconnect\n"
        "connect\nexpect A 34=3\nsend A 34=1 98=0 108=5 141=Y\nsend 1 34=2 112=y\nexpect 0 34=2 112=y",
        role=Role.INITIATOR,
    )


def test_initiator_hears_why_its_logon_is_refused() -> None:
    """A Logout in answer to a Logon gives its text to the owner and ends the connection."""
    peer = play('connect\nexpect A\nsend 5 "58=closed today"\nexpect-disconnect', role=Role.INITIATOR)
    assert LoggedOut("closed today") in peer.effects


def test_acceptor_can_reset_every_logon() -> None:
    """FIX.md 8: with `reset_on_logon` an acceptor begins at 1 whatever the initiator thinks."""
    play(
        "connect\nsend A 34=7 98=0 108=30\nexpect A 34=1 141=Y\nsend 1 34=2 112=x\nexpect 0 34=2 112=x",
        reset_on_logon=True,
    )


@pytest.mark.parametrize(
    "fields", ["98=0", "98=0 108=-1", "98=0 108=x", "98=2 108=5", "34=5 98=0 108=5 141=Y", "34=! 98=0 108=5"]
)
def test_logon_with_wrong_fields_is_dropped(fields: str) -> None:
    """FIX.md 1: a Logon that cannot be honoured is logged, and the connection dropped without an answer."""
    peer = play(f"connect\nsend A {fields}\nexpect-disconnect")
    assert [type(effect) for effect in peer.effects] == [Warning, Disconnect]


def test_second_logon_on_the_same_connection_is_rejected() -> None:
    """A Logon on a session that is logged on is rejected and counts."""
    play(f"{LOGON}send A 98=0 108=30\nexpect 3 45=2\nsend 1 112=x\nexpect 0 112=x")


def test_a_live_session_takes_no_second_connection() -> None:
    """FIX.md 1: `connected` for a live session is refused and changes nothing."""
    session = logged_on_acceptor()
    before = session.next_in, session.next_out
    with pytest.raises(FixError, match="live"):
        session.connected(at(1))
    assert (session.next_in, session.next_out) == before
    assert session.logged_on


def test_nothing_is_processed_before_it_is_committed() -> None:
    """What was delivered and not committed is asked for again after a reconnection; the rest is not."""
    peer = peer_with()
    Player(peer).play(parse_script("first", f"{LOGON}send order 11=one\nexpect D"))
    session = Session(peer.session.config, peer.session.store)
    assert (session.next_in, peer.session.store.next_in) == (3, 3)
    session.connected(at(10))
    script = Message.of("D", {11: "two"})
    client = Session(SessionConfig(sender="FIRM", target="PAPEREX", role=Role.INITIATOR), MemoryStore())
    client.store.next_out = 3
    client.store.save_in(session.next_out, 0)
    (hello,) = client.connected(at(10))
    assert isinstance(hello, Transmit)
    for effect in session.received(hello.data, at(10)):
        if isinstance(effect, Transmit):
            client.received(effect.data, at(10))
    session.commit(at(10))
    (order,) = client.send(script, at(10))
    assert isinstance(order, Transmit)
    (delivered,) = session.received(order.data, at(10))
    assert isinstance(delivered, Deliver)
    assert (session.next_in, session.store.next_in) == (5, 4)
    session.disconnected(at(11))
    session.connected(at(12))
    assert session.next_in == 4
    session.commit(at(12))
    assert session.store.next_in == 4


@pytest.mark.parametrize("bad", [Message.of("0"), Message.of("A"), Message([(58, "x")])])
def test_session_messages_cannot_be_sent_by_an_application(bad: Message) -> None:
    """`send` refuses the session's own types, and uses no number."""
    session = logged_on_acceptor()
    before = session.next_out
    with pytest.raises(FixError, match="session's own"):
        session.send(bad, at(1))
    assert session.next_out == before


@pytest.mark.parametrize("value", ["", "a\x01b", "日本"])
def test_values_that_cannot_be_written_use_no_number(value: str) -> None:
    """An empty value, a delimiter inside and text beyond Latin-1 are refused before a number is given."""
    session = logged_on_acceptor()
    before = session.next_out
    with pytest.raises(FixError):
        session.send(Message.of("8", {58: value}), at(1))
    assert session.next_out == before


def test_a_store_that_fails_uses_no_number() -> None:
    """A message that could not be stored is not sent, and the next one gets its number."""

    class Full(MemoryStore):
        full = True

        def save_out(self, seq_num: int, raw: bytes, wall_ns: int) -> None:
            if self.full:
                raise FixError("disk full")
            super().save_out(seq_num, raw, wall_ns)

    store = Full()
    session = Session(SessionConfig(sender="A", target="B"), store)
    with pytest.raises(FixError, match="disk full"):
        session.send(Message.of("8", {58: "x"}), at(0))
    assert session.next_out == 1
    store.full = False
    session.send(Message.of("8", {58: "x"}), at(0))
    assert [kept.seq_num for kept in store.load_out(1, 9)] == [1]


def test_stale_messages_can_be_kept_from_being_resent() -> None:
    """`may_resend` turns what it refuses into a gap fill."""
    peer = peer_with()
    peer.session = Session(
        peer.session.config, MemoryStore(), may_resend=lambda message: message.get(11) != "stale"
    )
    Player(peer).play(
        parse_script(
            "inline",
            f"{LOGON}send order 11=a\nexpect D\nsend order 11=stale\nexpect D\nsend order 11=b\nexpect D\n"
            "send 2 7=2 16=0\nexpect D 34=2 11=a\nexpect 4 34=3 36=4\nexpect D 34=4 11=b",
        )
    )


@pytest.mark.parametrize(("n", "answer"), [(1, "expect A 34=3"), (9, "expect A 34=1")])
def test_control_roll_back(n: int, answer: str) -> None:
    """FIX.md 13: an acceptor restored from an old copy numbers from there, never below 1."""
    peer = play(f"{LOGON}send order\nexpect D 34=2\nsend order\nexpect D 34=3\ndisconnect")
    peer.session.store.roll_back(n)
    player = Player(peer)
    player.play(parse_script("after", f"connect\nnumber 4\nsend A 98=0 108=30\n{answer}"))


def test_control_jump_ahead() -> None:
    """FIX.md 13: a jump by 4000 shows as a gap, which is filled, as nothing was sent under those numbers."""
    peer = play(f"{LOGON}send order\nexpect D 34=2\ndisconnect", max_resend=0)
    peer.session.store.jump_ahead(4000)
    text = "connect\nnumber 3\nsend A 98=0 108=30\nexpect A 34=4003\nsend 2 7=3 16=0\nexpect 4 34=3 36=4004"
    Player(peer).play(parse_script("after", text))


def test_control_wipe() -> None:
    """FIX.md 13: a wiped acceptor begins at 1 and asks for everything."""
    peer = play(f"{LOGON}send order\nexpect D 34=2\ndisconnect")
    peer.session.store.wipe()
    Player(peer).play(
        parse_script("after", "connect\nnumber 3\nsend A 98=0 108=30\nexpect A 34=1\nexpect 2 7=1 16=0")
    )


def test_rolled_back_incoming_side_asks_again() -> None:
    """FIX.md 13: rolled back on the incoming side, the acceptor asks for what it forgot."""
    peer = play(f"{LOGON}send order\nexpect D\nsend order\nexpect D\ndisconnect")
    peer.session.store.roll_back(2, outgoing=False, incoming=True)
    Player(peer).play(
        parse_script("after", "connect\nnumber 4\nsend A 98=0 108=30\nexpect A\nexpect 2 7=2 16=0")
    )


def test_schedule_begins_anew_each_window_and_ends_it() -> None:
    """FIX.md 12: logons outside the window are refused, its end logs out, the next window begins at 1."""
    schedule = Schedule(9 * 3600, 17 * 3600)
    config = SessionConfig(sender="PAPEREX", target="FIRM", heartbeat_s=0)
    session = Session(config, MemoryStore(), schedule=schedule)
    client = Session(
        SessionConfig(
            sender="FIRM", target="PAPEREX", role=Role.INITIATOR, heartbeat_s=0, reset_on_logon=True
        ),
        MemoryStore(),
    )
    midnight = 1_700_006_400 // 86_400 * 86_400

    def instant(hour: float) -> Now:
        return Now(int(hour * 3600 * SECOND_NS), int((midnight + hour * 3600) * SECOND_NS))

    def log_on(hour: float) -> list[object]:
        client.disconnected(instant(hour))
        session.connected(instant(hour))
        (hello,) = client.connected(instant(hour))
        assert isinstance(hello, Transmit)
        return list(session.received(hello.data, instant(hour)))

    assert isinstance(log_on(8)[-1], Disconnect)
    assert isinstance(log_on(10)[-1], LoggedOn)
    assert session.deadline() == instant(17).mono_ns
    assert session.tick(instant(16.9)) == []
    assert [type(effect) for effect in session.tick(instant(17))] == [Transmit, LoggedOut, Disconnect]
    session.store.next_out = 77
    session.connected(instant(18))
    assert session.next_out == 77
    session.disconnected(instant(18))
    session.connected(instant(24 + 9))
    assert session.next_out == 1


def test_no_logon_in_time_ends_the_connection() -> None:
    """A connection on which nobody logs on is closed at its deadline, and not before."""
    session = Session(SessionConfig(sender="A", target="B", logon_timeout_s=4), MemoryStore())
    assert session.deadline() is None
    session.connected(at(1))
    assert session.deadline() == 5 * SECOND_NS
    assert session.tick(at(4.9)) == []
    assert [type(effect) for effect in session.tick(at(5))] == [Disconnect]
    assert session.deadline() is None


def test_logout_without_an_answer_times_out() -> None:
    """FIX.md 10: the Logout handshake has a time limit."""
    session = logged_on_acceptor()
    (sent,) = session.logout("end of day", at(1))
    assert isinstance(sent, Transmit)
    assert decode(sent.data).get(58) == "end of day"
    assert session.tick(at(2.9)) == []
    assert [type(effect) for effect in session.tick(at(3))] == [LoggedOut, Disconnect]
    assert session.logout("again", at(4)) == []


def test_no_logout_on_socket_loss() -> None:
    """FIX.md 10: when the socket is gone nothing is sent, and no number used."""
    session = logged_on_acceptor()
    before = session.next_out
    assert session.disconnected(at(1)) == []
    assert session.disconnected(at(1)) == []
    assert session.next_out == before
    assert session.received(b"8=FIX", at(1)) == []


def test_frozen_owner_asks_before_it_gives_up() -> None:
    """After a long pause of our own the other side gets a TestRequest and its time, not a disconnect."""
    session = logged_on_acceptor(heartbeat_s=1)
    effects = session.tick(at(100))
    assert [effect.msg_type for effect in effects if isinstance(effect, Transmit)] == ["1"]
    assert [type(effect) for effect in session.tick(at(101.2))][-2:] == [LoggedOut, Disconnect]


def test_sending_time_can_be_skewed() -> None:
    """Misbehaviour: 52 is off by the skew, and a strict counterparty notices."""
    session = logged_on_acceptor()
    session.sending_skew_ns = 300 * SECOND_NS
    (sent,) = session.send(Message.of("8", {37: "x"}), at(0))
    assert isinstance(sent, Transmit)
    assert decode(sent.data).get(52) == "20231114-22:18:20.000"


def test_owner_can_reject_a_message() -> None:
    """`reject` writes reference, reason and text, and is itself resent on request."""
    session = logged_on_acceptor()
    message = decode(b"8=FIX.4.4\x019=20\x0135=D\x0134=2\x0111=\x0110=000\x01")
    (sent,) = session.reject(message, at(1), text="no price", reason=1, tag=44)
    assert isinstance(sent, Transmit)
    assert decode(sent.data).pairs[7:-1] == [(45, "2"), (371, "44"), (372, "D"), (373, "1"), (58, "no price")]
    assert [kept.seq_num for kept in session.store.load_out(1, 9)] == [sent.seq_num]


@pytest.mark.parametrize(
    "settings", [{"sender": ""}, {"target": "a\x01b"}, {"heartbeat_s": -1}, {"max_resend": -5}]
)
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    """Settings with which no session can work are refused when they are made."""
    with pytest.raises(FixError, match="SessionConfig"):
        SessionConfig(**{"sender": "A", "target": "B", **settings})


def test_second_request_joins_a_running_replay() -> None:
    """A request that comes during a slow replay is served, and the rest of the first is not forgotten."""
    play(
        f"{LOGON}{ORDERS}send 2 7=2 16=7\nexpect D 34=2\nexpect D 34=3\nsend 2 7=2 16=3\n"
        "expect D 34=2\nexpect D 34=3\nexpect D 34=4\nexpect D 34=5\nexpect D 34=6\nexpect D 34=7\nquiet 1",
        resend_batch=2,
    )


def test_request_that_waited_is_not_served_twice() -> None:
    """FIX.md 11: a ResendRequest that was served at once and waited behind a gap is then only counted."""
    play(
        f"{LOGON}send order\nexpect D 34=2\nsend 2 34=4 7=2 16=0\nexpect D 34=2 43=Y\nexpect 2 7=3 16=0\n"
        "send 4 34=3 43=Y 122=@now 123=Y 36=4\nquiet 1\nsend 1 34=5 112=x\nexpect 0 112=x"
    )


def test_logon_that_waited_is_only_counted() -> None:
    """FIX.md 2: the Logon whose number was too high is not a second Logon when its turn comes."""
    play(
        f"{LOGON}disconnect\nconnect\nsend A 34=4 98=0 108=30\nexpect A\nexpect 2 7=2 16=0\n"
        "send 4 34=2 43=Y 122=@now 123=Y 36=4\nquiet 1\nsend 1 34=5 112=x\nexpect 0 112=x"
    )


def test_with_789_a_high_logon_is_not_asked_for() -> None:
    """FIX.md 9: the other side has our 789 and resends by itself; we ask only where that does not come."""
    play(
        f"{LOGON}disconnect\nconnect\nsend A 34=4 98=0 108=30 789=2\nexpect A 789=2\nquiet 3\n"
        "wait 5\nexpect 2 7=2 16=0",
        next_expected=True,
        request_again_s=7.0,
    )


def test_half_a_message_does_not_reach_into_the_next_connection() -> None:
    """What came incomplete before a cut is forgotten, so that the next Logon is read cleanly."""
    peer = play(f"{LOGON}raw 8=FIX.4.4|9=500|35=D|\ndisconnect\nconnect\nsend A 98=0 108=30\nexpect A 34=2")
    assert not any(isinstance(effect, Warning) for effect in peer.effects)


def test_what_was_held_behind_a_replay_is_renumbered_after_a_reset() -> None:
    """FIX.md 8: a message held back when the connection broke was never offered, so it comes anew."""
    play(
        f"{LOGON}{ORDERS}send 2 7=2 16=5\nexpect D 34=2\nexpect D 34=3\nsend order 11=held\ndisconnect\n"
        "connect\nsend A 34=1 98=0 108=30 141=Y\nexpect A 34=1\nexpect D 34=2 43=! 11=held\nquiet 1",
        resend_batch=2,
        live_during_resend=False,
        on_reset=OnReset.RENUMBER,
    )
