"""Who may in production: two accounts, one content, a time, limits, market hours. Every refusal once."""

from __future__ import annotations

import datetime as dt
import json
import os
import pwd
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from blackstart.cli import chaos as chaos_options
from blackstart.engine import approval as approvals
from blackstart.engine import market, permit
from blackstart.engine.approval import Signed
from blackstart.engine.market import Session
from blackstart.errors import PermitError
from blackstart.host import timekeeping
from blackstart.model.approval import Approval, Grant, Signature, Signer
from blackstart.model.manifest import Component, Limits, Manifest, Process
from blackstart.model.scenario import FaultStep, Objectives, Plan, Scenario, Trigger
from blackstart.scenario import approved

if TYPE_CHECKING:
    from collections.abc import Callable


NS = 1_000_000_000
H = 3600 * NS
ADA, BEN = Signer(uid=1001, name="ada", signed_wall_ns=0), Signer(uid=1002, name="ben", signed_wall_ns=0)
MANIFEST = Manifest(
    schema=1,
    name="firm",
    environment="production",
    symbols=("ALFA", "BRAVO"),
    components={"engine": Component(process="e", symbols=("ALFA",)), "risk": Component(process="e")},
    processes={"e": Process(command=("true",))},
    limits=Limits(concurrent_faults=2),
)


def ns(text: str) -> int:
    """Read a moment in UTC."""
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()) * NS


NOW = ns("2026-11-28T10:00")  # a Saturday


def plan(*steps: FaultStep) -> Plan:
    """Make a plan of these faults."""
    steps = steps or (FaultStep(kind="kill", components=("engine",)),)
    scenario = Scenario(
        id="P1", title="p", requirement="R23", fault=steps[0], objectives=Objectives(rto_ms=1)
    )
    names = steps[0].components
    return Plan(
        trial_id="P1", scenario=scenario, components=names, service="s", seed=1, replay="-", steps=steps
    )


WISH = approved.of_trials([plan()], MANIFEST)


def content(**changes: Any) -> Approval:
    """Make an approval for exactly the wish, valid now for an hour."""
    settings: dict[str, Any] = {
        "target": "firm",
        "manifest_sha256": approvals.manifest_sha256(MANIFEST),
        "what": WISH.what,
        "kinds": ("kill",),
        "components": ("engine",),
        "symbols": ("ALFA",),
        "from_wall_ns": NOW - H,
        "until_wall_ns": NOW + H,
        "markets": ("XNYS",),
        "margin_s": 1800.0,
        "reason": "drill",
    }
    return Approval(**{**settings, **changes})


def signed(approval: Approval, *signers: Signer, at_ns: int = NOW - 2 * H) -> list[Signed]:
    """Pretend that these people signed."""
    sha256 = approved.fingerprint(approval)
    whole = [msgspec.structs.replace(one, signed_wall_ns=at_ns) for one in signers]
    return [Signed(Path(f"{sha256}.{one.uid}.json"), one, approval, changed_ns=at_ns) for one in whole]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Grant]:
    """Ask for a grant from files that only pretend; the market opens in two days."""
    sessions = [Session(NOW - 200 * H, NOW - 193 * H), Session(NOW + 52 * H, NOW + 58 * H)]
    monkeypatch.setattr(market, "calendar", lambda _market, _now: sessions)
    monkeypatch.setattr(timekeeping, "synchronised", lambda: True)

    def asked(
        *files: list[Signed], wish: approved.Wish = WISH, manifest: Manifest = MANIFEST, timed: bool = True
    ) -> Grant:
        found = {one[0].path.name: one for one in files}
        monkeypatch.setattr(approvals, "read", lambda _place: found)
        return permit.grant(manifest, wish, Path("/place"), NOW, timed=timed)

    return asked


def test_two_people_who_agree_are_granted(ask: Callable[..., Grant]) -> None:
    """The grant says who, when, for what, and until when at the latest: its own end, or the market's."""
    found = ask(signed(content(), ADA, BEN))
    assert [one.name for one in found.signers] == ["ada", "ben"]
    assert (found.ends_wall_ns, found.used_wall_ns) == (NOW + H, NOW)
    assert found.sha256 == approved.fingerprint(content())
    monday = msgspec.structs.replace(content(), margin_s=51.5 * 3600)
    assert ask(signed(monday, ADA, BEN)).ends_wall_ns == NOW + H // 2, "the market comes before its own end"


REFUSED: dict[str, tuple[Callable[[], list[Signed]], str]] = {
    "one person": (lambda: signed(content(), ADA), "approved by ada only, 2 people"),
    "the same twice": (lambda: signed(content(), ADA, ADA), "approved by ada only"),
    "expired": (lambda: signed(content(until_wall_ns=NOW), ADA, BEN), "it has expired"),
    "not yet valid": (lambda: signed(content(from_wall_ns=NOW + 1), ADA, BEN), "not valid yet"),
    "too long": (lambda: signed(content(until_wall_ns=NOW + 23 * H + 1), ADA, BEN), "24 h allowed"),
    "no reason": (lambda: signed(content(reason=" "), ADA, BEN), "no reason"),
    "no market": (lambda: signed(content(markets=()), ADA, BEN), "no market"),
    "other manifest": (lambda: signed(content(manifest_sha256="0"), ADA, BEN), "was changed since"),
    "other scenario": (lambda: signed(content(what={"scenario R1": "0"}), ADA, BEN), "P1 is not approved"),
    "changed scenario": (lambda: signed(content(what={"scenario P1": "0"}), ADA, BEN), "P1 was changed"),
    "kind": (lambda: signed(content(kinds=("pause",)), ADA, BEN), "fault `kill` is not approved, only pause"),
    "component": (
        lambda: signed(content(components=("risk",)), ADA, BEN),
        "component `engine` is not approved, only risk",
    ),
    "symbol": (lambda: signed(content(symbols=("BRAVO",)), ADA, BEN), "disturbs ALFA; approved: BRAVO"),
    "signed in the future": (lambda: signed(content(), ADA, BEN, at_ns=NOW + 1), "clock cannot be believed"),
    "signed long before": (lambda: signed(content(), ADA, BEN, at_ns=NOW - 8 * 24 * H), "more than 7 days"),
    "time too short": (lambda: signed(content(until_wall_ns=NOW + 60 * NS), ADA, BEN), "approval ends"),
    "market too near": (lambda: signed(content(margin_s=51.99 * 3600), ADA, BEN), "XNYS opens"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_missing_piece_is_refused(ask: Callable[..., Grant], case: str) -> None:
    """Whatever is wrong: status 3, what it is, where, and what to do."""
    files, why = REFUSED[case]
    with pytest.raises(PermitError, match=why) as refused:
        ask(files())
    assert refused.value.exit_status == 3
    assert refused.value.hint
    assert "firm" in refused.value.where


def test_without_any_approval_it_is_refused(ask: Callable[..., Grant]) -> None:
    """None at all, and one of another target: there is none."""
    for files in ([], [signed(content(target="other"), ADA, BEN)]):
        with pytest.raises(PermitError, match="there is none"):
            ask(*files)


def test_the_one_that_fits_is_found_among_others(ask: Callable[..., Grant]) -> None:
    """Expired ones, and what anybody threw into the folder, do not stand in the way of one that fits."""
    rubbish = [Signed(Path("0" * 64 + ".7.json"), problem="is no signature")]
    late = signed(content(until_wall_ns=NOW), ADA, BEN)
    assert ask(rubbish, late, signed(content(), ADA, BEN)).approval == content()
    with pytest.raises(PermitError, match=r"it has expired; 1 other\(s\)"):
        ask(rubbish, late)


def test_a_clock_that_nothing_keeps_is_refused_unless_both_knew(
    ask: Callable[..., Grant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Market hours by a clock that may be wrong are none."""
    monkeypatch.setattr(timekeeping, "synchronised", lambda: False)
    with pytest.raises(PermitError, match="does not take it for synchronised"):
        ask(signed(content(), ADA, BEN))
    ask(signed(content(unsynchronised_clock=True), ADA, BEN))


def test_what_one_scenario_does_to_each_part_is_approved_part_by_part(ask: Callable[..., Grant]) -> None:
    """Trials of one scenario may expect different things: each has its own hash, a repetition has not."""
    one = plan()
    stricter = msgspec.structs.replace(one.scenario, objectives=Objectives(rto_ms=2))
    first = msgspec.structs.replace(one, trial_id="P1:engine")
    second = msgspec.structs.replace(one, trial_id="P1:risk", scenario=stricter)
    again = msgspec.structs.replace(first, trial_id="P1:engine#2")
    wish = approved.of_trials([first, second, again], MANIFEST)
    assert list(wish.what) == ["scenario P1:engine", "scenario P1:risk"]
    assert len(set(wish.what.values())) == 2
    mine = content(what=wish.what)
    for single in (first, second, again):
        assert ask(signed(mine, ADA, BEN), wish=approved.of_trials([single], MANIFEST)).approval == mine


def test_beyond_the_number_or_without_a_place_is_refused(ask: Callable[..., Grant]) -> None:
    """Faults at once, a fault of the whole host, a link, faults too close together."""
    kill = FaultStep(kind="kill", components=("engine",))
    for steps, why in (
        ((kill, kill), "2 faults at once, 1 approved"),
        ((FaultStep(kind="kill"),), "hits the whole host"),
        ((FaultStep(kind="kill", links=("line",)),), "link `line` is not approved, only none"),
    ):
        wish = approved.of_trials([plan(*steps)], MANIFEST)
        mine = content(what=wish.what, symbols=None)
        with pytest.raises(PermitError, match=why):
            ask(signed(mine, ADA, BEN), wish=wish)
    often = msgspec.structs.replace(WISH, interval_s=1.0)
    with pytest.raises(PermitError, match="faults 1 s apart, not less than 60 s"):
        ask(signed(content(interval_s=60.0), ADA, BEN), wish=often)


def test_for_a_schedule_it_may_begin_later_but_not_be_over(ask: Callable[..., Grant]) -> None:
    """Whoever keeps a schedule may be started before: each session asks again."""
    ask(signed(content(from_wall_ns=NOW + 1), ADA, BEN), timed=False)
    with pytest.raises(PermitError, match="expired"):
        ask(signed(content(until_wall_ns=NOW), ADA, BEN), timed=False)


def test_the_longest_time_counts_every_limit() -> None:
    """Start, steady state, trigger, the fault itself, observation, closing: in the worst case one by one."""
    slow = FaultStep(
        kind="kill", components=("engine",), duration_s=50.0, trigger=Trigger(delay_s=7, limit_s=3)
    )
    shorter = approved.longest_s(plan(FaultStep(kind="kill", trigger=Trigger(limit_s=0))), MANIFEST)
    assert approved.longest_s(plan(slow), MANIFEST) == pytest.approx(shorter + 60.0)
    assert shorter == pytest.approx(30 + 10 + 60 + 30 + 30 + 1 + 10)


# Files and accounts


def seen(mode: int, uid: int = 0, *, links: int = 1, size: int = 10) -> os.stat_result:
    """Pretend a file."""
    return os.stat_result((mode, 1, 1, links, uid, 0, size, 0, 0, 0))


def test_folders_that_others_can_change_are_unsafe() -> None:
    """Not root's, writable without the sticky bit, or no folder at all."""
    assert approvals.unsafe_folder(seen(stat.S_IFDIR | 0o1777)) is None
    assert approvals.unsafe_folder(seen(stat.S_IFDIR | 0o755)) is None
    assert "sticky" in str(approvals.unsafe_folder(seen(stat.S_IFDIR | 0o777)))
    assert "sticky" in str(approvals.unsafe_folder(seen(stat.S_IFDIR | 0o775)))
    assert "uid 5, not to root" in str(approvals.unsafe_folder(seen(stat.S_IFDIR | 0o755, 5)))
    assert "no folder" in str(approvals.unsafe_folder(seen(stat.S_IFREG | 0o755)))


def test_files_that_others_can_change_are_unsafe() -> None:
    """Writable by group or others, with a second name, a pipe, or too large to be one."""
    assert approvals.unsafe_file(seen(stat.S_IFREG | 0o644, 5)) is None
    assert "written by others" in str(approvals.unsafe_file(seen(stat.S_IFREG | 0o664, 5)))
    assert "written by others" in str(approvals.unsafe_file(seen(stat.S_IFREG | 0o646, 5)))
    assert "several names" in str(approvals.unsafe_file(seen(stat.S_IFREG | 0o644, 5, links=2)))
    assert "no file" in str(approvals.unsafe_file(seen(stat.S_IFIFO | 0o644, 5)))
    assert "too large" in str(approvals.unsafe_file(seen(stat.S_IFREG | 0o644, 5, size=1 << 20)))


def people(monkeypatch: pytest.MonkeyPatch, **uids: int) -> None:
    """Pretend accounts; a name that begins with `svc` has no login."""
    names = {uid: name for name, uid in uids.items()}

    def look(uid: int) -> Any:
        shell = "/usr/sbin/nologin" if names[uid].startswith("svc") else "/bin/sh"
        return SimpleNamespace(pw_name=names[uid], pw_shell=shell)

    monkeypatch.setattr(pwd, "getpwuid", look)


def test_who_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, accounts that there are not, and accounts of services count for nobody."""
    people(monkeypatch, ada=1001, svc=33, odd=65534)
    assert approvals.nobody(1001) is None
    assert "root counts for nobody" in str(approvals.nobody(0))
    assert "no account" in str(approvals.nobody(4711))
    assert "service account" in str(approvals.nobody(33))
    assert "service account" in str(approvals.nobody(65534))


def test_a_manifest_is_known_by_content_glue_and_folder(tmp_path: Path) -> None:
    """Whatever changes what would be done changes the hash; asking twice does not."""
    (tmp_path / "glue.py").write_text("1", encoding="utf-8")
    mine = msgspec.structs.replace(MANIFEST, folder=str(tmp_path), glue="glue.py")
    first = approvals.manifest_sha256(mine)
    assert approvals.manifest_sha256(mine) == first
    found = {first}
    (tmp_path / "glue.py").write_text("2", encoding="utf-8")
    found.add(approvals.manifest_sha256(mine))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "glue.py").write_text("1", encoding="utf-8")
    found.add(approvals.manifest_sha256(msgspec.structs.replace(mine, folder=str(tmp_path / "other"))))
    found.add(approvals.manifest_sha256(msgspec.structs.replace(mine, limits=Limits())))
    assert len(found) == 4
    with pytest.raises(PermitError, match="glue cannot be read"):
        approvals.manifest_sha256(msgspec.structs.replace(mine, glue="gone.py"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a place that counts as safe, whose files belong to whoever the test says."""
    monkeypatch.setattr(approvals, "safe", lambda place: place)
    return tmp_path


def written(place: Path, monkeypatch: pytest.MonkeyPatch, approval: Approval | None = None) -> Path:
    """Sign as a person that this user pretends to be."""
    people(monkeypatch, ada=os.geteuid() or 1001, root=0)
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 1001)
    path = approvals.sign(place, approval or content(), NOW)
    if os.getuid() == 0:
        os.chown(path, 1001, 1001)
    return path


def test_a_signature_is_read_as_it_was_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may write the file, not even its owner; it is read back whole; and signing twice is refused."""
    path = written(place, monkeypatch)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    (found,) = approvals.read(place)[approved.fingerprint(content())]
    assert (found.problem, found.approval) == ("", content())
    assert found.signer is not None
    assert (found.signer.name, found.signer.signed_wall_ns) == ("ada", NOW)
    with pytest.raises(PermitError, match="ada has signed this already, and counts once"):
        approvals.sign(place, content(), NOW)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace(b"drill", b"havoc"), "tampered with"),
        (lambda text: text.replace(b'"sha256": "', b'"sha256": "0', 1), "tampered with"),
        (lambda text: text[:-20], "no signature"),
        (lambda _text: b"[]", "no signature"),
        (lambda text: text.replace(b'"approval"', b'"approvals"', 1), "no signature"),
    ],
)
def test_a_changed_file_counts_for_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes], why: str
) -> None:
    """Content that is not what was signed, or half a file."""
    path = written(place, monkeypatch)
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))
    ((found,),) = approvals.read(place).values()
    assert why in found.problem
    assert found.signer is None


def test_files_in_anothers_name_and_links_count_for_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy under the name of another uid, a symbolic link, a second name: none of them is a signature."""
    path = written(place, monkeypatch)
    sha256 = approved.fingerprint(content())
    copied = place / f"{sha256}.1002.json"
    copied.write_bytes(path.read_bytes())
    if os.getuid() == 0:
        os.chown(copied, 1001, 1001)
    linked = place / f"{sha256}.1003.json"
    linked.symlink_to(path)
    found = {one.path.name: one.problem for one in approvals.read(place)[sha256]}
    assert "tampered" in found[copied.name]
    assert "cannot be read" in found[linked.name]
    assert len(approvals.signers(approvals.read(place)[sha256])) == 1
    os.link(path, place / f"{sha256}.1004.json")
    assert approvals.signers(approvals.read(place)[sha256]) == ()


def test_root_cannot_sign(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By sudo anybody would be the second person."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(PermitError, match="root counts for nobody"):
        approvals.sign(place, content(), NOW)
    assert list(place.iterdir()) == []


def test_a_place_of_somebody_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not there, and one that belongs to a user."""
    with pytest.raises(PermitError, match="No such file") as refused:
        approvals.safe(tmp_path / "none")
    assert "install -d -m 1777" in refused.value.hint
    seen_by_link = tmp_path / "link"
    seen_by_link.symlink_to(tmp_path, target_is_directory=True)
    with monkeypatch.context() as patch:
        patch.setattr(approvals, "unsafe_folder", lambda _found: None)
        assert approvals.safe(seen_by_link) == tmp_path.resolve(), "what is checked is what is used"
    monkeypatch.setattr(approvals, "unsafe_folder", lambda _found: "belongs to uid 7, not to root")
    with pytest.raises(PermitError, match="belongs to uid 7"):
        approvals.safe(tmp_path)


def test_in_a_user_namespace_owners_prove_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes one decides who is who in it."""
    monkeypatch.setattr(approvals, "unsafe_folder", lambda _found: None)
    monkeypatch.setattr(approvals, "_ALL_UIDS", ["0", "1000", "1"])
    with pytest.raises(PermitError, match="user namespace"):
        approvals.safe(tmp_path)


def test_one_run_at_a_time(place: Path) -> None:
    """Two by the same place at once would be more at once than anybody approved."""
    with (
        approvals.alone(place),
        pytest.raises(PermitError, match="another run uses"),
        approvals.alone(place),
    ):
        pass
    with approvals.alone(place), approvals.alone(None):
        pass


def test_a_signature_survives_its_file() -> None:
    """What is signed has one form: written, read and written again, the hash is the same."""
    approval = content(what={"b": "1", "a": "2"}, symbols=None)
    signature = Signature(approval=approval, sha256=approved.fingerprint(approval), signed_wall_ns=1)
    again = msgspec.json.decode(msgspec.json.encode(signature), type=Signature)
    assert approved.fingerprint(again.approval) == signature.sha256
    turned = content(what={"a": "2", "b": "1"}, symbols=None)
    assert approved.fingerprint(turned) == signature.sha256


def test_the_command_line_looks_where_the_engine_does() -> None:
    """The default of `--approvals`, written twice so that the start imports no engine."""
    assert approvals.PLACE == chaos_options.DEFAULT_APPROVALS


# Market hours


DAYS = [Session(ns(f"2026-11-{day}T14:30"), ns(f"2026-11-{day}T{end}")) for day, end in
        (("25", "21:00"), ("27", "18:00"), ("30", "21:00"))]  # fmt: skip


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        ("2026-11-25T21:30", "2026-11-27T14:30"),
        ("2026-11-26T16:00", "2026-11-27T14:30"),  # a holiday
        ("2026-11-27T13:59", "2026-11-27T14:30"),
        ("2026-11-27T18:30", "2026-11-30T14:30"),  # a half day is over early
        ("2026-11-28T12:00", "2026-11-30T14:30"),
    ],
)
def test_closed_until(moment: str, opens: str) -> None:
    """At night, on holidays, after the early close of a half day, at the weekend: until the next open."""
    assert market.next_open("X", ns(moment), 1800, lambda _market, _now: DAYS) == ns(opens)
    assert market.next_open("XNYS", ns(moment), 1800) == ns(opens), "the real calendar says the same"


@pytest.mark.parametrize(
    "moment",
    ["2026-11-27T14:00", "2026-11-27T14:30", "2026-11-27T17:59", "2026-11-27T18:00", "2026-11-27T18:29"],
)
def test_open_or_too_near(moment: str) -> None:
    """In its hours, those of a half day, and in the margin around them, nothing is allowed."""
    for sessions in (lambda _market, _now: DAYS, None):
        with pytest.raises(PermitError, match="market hours"):
            market.next_open("XNYS", ns(moment), 1800, sessions)


@pytest.mark.parametrize(
    "moment", ["2026-11-24T12:00", "2026-11-25T16:00", "2026-11-30T21:30", "2027-06-01T12:00"]
)
def test_beyond_the_calendar_is_refused(moment: str) -> None:
    """Before the first session that it knows, or after the last, nobody can tell."""
    with pytest.raises(PermitError, match="does not cover"):
        market.next_open("X", ns(moment), 1800, lambda _market, _now: DAYS)


def test_no_calendar_is_no_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown market, one whose holidays are not known so far ahead, and no library at all."""
    with pytest.raises(PermitError, match="no such market") as refused:
        market.next_open("XNOWHERE", NOW, 1800)
    assert "XNYS" in refused.value.hint
    with pytest.raises(PermitError, match="cannot be asked: ValueError"):
        market.next_open("XKRX", ns("2060-01-01T00:00"), 1800)
    with pytest.raises(PermitError, match="market hours"):
        market.next_open("24/7", NOW, 1800)
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    with pytest.raises(PermitError, match="exchange_calendars is not there") as missing:
        market.next_open("XNYS", NOW, 1800)
    assert missing.value.hint == "pip install 'blackstart[production]'"


# What an approval does to a run


def granted(ends_wall_ns: int) -> Grant:
    """Make one that ends then."""
    return Grant(
        approval=content(until_wall_ns=ends_wall_ns),
        sha256="0" * 64,
        signers=(ADA, BEN),
        used_by="root",
        used_wall_ns=0,
        ends_wall_ns=ends_wall_ns,
        opens={},
        place="/place",
    )


def test_a_signature_that_is_gone_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are looked at anew: one gone, both there, the folder no longer safe."""
    mine = msgspec.structs.replace(granted(NOW), sha256=approved.fingerprint(content()), approval=content())
    both = {mine.sha256: signed(content(), ADA, BEN)}
    monkeypatch.setattr(approvals, "read", lambda _place: both)
    assert permit.withdrawn(mine, MANIFEST) is None
    changed = msgspec.structs.replace(MANIFEST, title="another")
    assert permit.withdrawn(mine, changed) == "the glue was changed since it was approved"
    both[mine.sha256].pop()
    assert permit.withdrawn(mine, MANIFEST) == "ben withdrew the approval"

    def unsafe(_place: Path) -> Any:
        raise PermitError("not safe")

    monkeypatch.setattr(approvals, "read", unsafe)
    assert permit.withdrawn(mine, MANIFEST) == "not safe"


def test_a_grant_is_written_and_read() -> None:
    """Histories keep it with the plan."""
    one = msgspec.structs.replace(plan(), approval=granted(NOW))
    text = msgspec.json.encode(one)
    assert msgspec.json.decode(text, type=Plan) == one
    assert json.loads(text)["approval"]["signers"][1]["name"] == "ben"
