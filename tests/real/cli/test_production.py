"""Production by the command line: a small target that two people approved, and everything else refused.

The people are two accounts of a password database that only these commands see. As root only: nobody else can
be two people.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackstart.engine import approval, market
from blackstart.errors import PermitError
from blackstart.history.view import load
from blackstart.model.record import Header
from blackstart.testing.examples import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA, BEN = 4711, 4712
_ALONE = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"')
_CAPS = "+dac_read_search"  # the checkout may lie where only root can read
SCENARIO = """
id = "P1"
title = "the server dies"
requirement = "R23"
[fault]
kind = "kill"
components = ["server"]
[objectives]
rto_ms = 30000
[load]
minimum_per_s = 1
[steady]
hold_s = 0.3
[observe]
limit_s = 10
after_s = 0.5
quiesce_s = 3
"""
PROFILE = """
name = "careful"
title = "careful"
environments = ["production"]
schedule = "in tests"
approval = true
for_s = 8.0
interval_s = [2.0, 2.5]
recovery_limit_s = 15.0
settle_s = 3.0
[[fault]]
kind = "kill"
components = ["server"]
"""


def closed_market() -> str:
    """Find an exchange that has hours to go until it opens."""
    now = time.time_ns()
    for one in ("XNYS", "XTKS", "XLON", "XASX", "XBOM", "BVMF"):
        try:
            if market.next_open(one, now, 1800) - now > 3 * 3600 * 10**9:
                return one
        except PermitError:
            continue
    pytest.skip("every exchange of the world is open, or about to be")


class World:
    """A folder with a manifest, a place for approvals, and people."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder, self.place, self.out = folder, place, folder / "runs"
        self.place.chmod(0o1777)
        shutil.copytree(Path(SMALL).parent, folder / "small")
        self.manifest = folder / "small" / "small.toml"
        text = self.manifest.read_text(encoding="utf-8")
        self.manifest.write_text(text.replace('"test"', '"production"', 1), encoding="utf-8")
        self.scenario, self.profile = folder / "p1.toml", folder / "careful.toml"
        self.scenario.write_text(SCENARIO, encoding="utf-8")
        self.profile.write_text(PROFILE, encoding="utf-8")
        self.passwd = folder / "passwd"
        people = [f"{name}:x:{uid}:{uid}::/:/bin/sh" for name, uid in (("ada", ADA), ("ben", BEN))]
        self.passwd.write_text("\n".join(["root:x:0:0:root:/root:/bin/sh", *people, ""]), encoding="utf-8")

    def run(self, uid: int, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as somebody."""
        become: tuple[str, ...] = ()
        if uid:
            caps = (f"--inh-caps={_CAPS}", f"--ambient-caps={_CAPS}")
            become = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *caps)
        command = (*become, sys.executable, "-m", "blackstart.cli.main", *words)
        return subprocess.run(
            (*_ALONE, str(self.passwd), *command),
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
            cwd=self.folder,
            env={**os.environ, "XDG_STATE_HOME": str(self.folder / "state")},
        )

    def propose(self, uid: int, *more: str, what: str = "") -> subprocess.CompletedProcess[str]:
        """Propose to kill the server, for an hour unless `more` says otherwise."""
        until = (dt.datetime.now(tz=dt.UTC) + dt.timedelta(hours=1)).isoformat()
        defaults = {"--kind": "kill", "--component": "server", "--market": "", "--until": until}
        words = [*(("--scenario", str(self.scenario)) if what == "" else ("--profile", what)), *more]
        for option, value in defaults.items():
            if option not in more:
                words += [option, value or closed_market()]
        words += ["--all-symbols", "--reason", "the yearly drill", "--unsynchronised-clock"]
        return self.run(uid, "approve", "-t", str(self.manifest), "--approvals", str(self.place), *words)

    def confirm(self, uid: int, sha256: str) -> subprocess.CompletedProcess[str]:
        """Confirm it."""
        where = ("-t", str(self.manifest), "--approvals", str(self.place))
        return self.run(uid, "confirm", sha256, *where)

    def approved(self, *more: str, what: str = "") -> str:
        """Have both approve; returns the hash."""
        proposed = self.propose(ADA, *more, what=what)
        assert proposed.returncode == 0, proposed.stderr
        sha256 = next(line for line in proposed.stdout.splitlines() if "signed by" in line).split()[-1]
        confirmed = self.confirm(BEN, sha256)
        assert confirmed.returncode == 0, confirmed.stderr
        assert "approved by ada and ben" in confirmed.stdout
        return sha256

    def trial(self) -> subprocess.CompletedProcess[str]:
        """Run the trial."""
        where = ("-t", str(self.manifest), "--approvals", str(self.place), "--out", str(self.out))
        return self.run(0, "run", str(self.scenario), *where, "--json")

    def chaos(self, *more: str, verb: str = "run") -> subprocess.CompletedProcess[str]:
        """Run a session."""
        where = ("-t", str(self.manifest), "--approvals", str(self.place), "--out", str(self.out))
        return self.run(0, "chaos", verb, "--profile", str(self.profile), *where, *more)

    def refused(self, done: subprocess.CompletedProcess[str], why: str) -> None:
        """See that it was refused for that reason, with a way out, before anything was started."""
        assert (done.returncode, why in done.stderr) == (3, True), done.stdout + done.stderr
        assert "\u2192" in done.stderr
        assert [path for path in self.out.glob("*") if not path.is_symlink()] == []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Make one; skips where nobody can be two people."""
    if os.geteuid() != 0:
        pytest.skip("only root can be two people")
    with tempfile.TemporaryDirectory(prefix="blackstart-approvals-") as place:  # others must reach it
        try:
            approval.safe(Path(place))
        except PermitError as error:
            pytest.skip(error.render())
        made = World(tmp_path, Path(place))
        tried = made.run(ADA, "--version")
        if tried.returncode != 0:
            pytest.skip(f"no people of our own here: {tried.stderr.strip()}")
        yield made


def test_two_people_and_a_trial_runs(world: World) -> None:
    """Approved by two, outside market hours: it runs; history, result, report and terminal say by whom."""
    sha256 = world.approved()
    done = world.trial()
    assert done.stdout, done.stderr
    (trial,) = json.loads(done.stdout)["trials"]
    assert done.returncode == {"PASS": 0, "FAIL": 1, "UNKNOWN": 2}[trial["verdict"]]
    assert (trial["rpo"]["events"], trial["rto"]["total_ms"] is None) == (0, False), trial["reasons"]
    signers: list[dict[str, Any]] = trial["approval"]["signers"]
    assert [(one["name"], one["uid"]) for one in signers] == [("ada", ADA), ("ben", BEN)]
    assert (trial["approval"]["sha256"], trial["approval"]["used_by"]) == (sha256, "root")
    assert trial["fault"]["witness"] is not None
    assert "approved by ada" in done.stderr
    header = load(Path(trial["folder"])).first(Header)
    assert header is not None
    assert header.plan.approval is not None
    assert header.plan.approval.sha256 == sha256
    page = (world.out / "latest" / "report.html").read_text(encoding="utf-8")
    assert "approved by ada (uid 4711" in page
    assert "the yearly drill" in page
    shown = world.run(0, "approvals", sha256[:8], "--approvals", str(world.place))
    assert "valid now" in shown.stdout


def test_two_people_and_chaos_runs_and_is_replayed(world: World) -> None:
    """A session runs by an approval for its profile, and is over before it ends; so does its replay."""
    world.approved("--interval", "1s", what=str(world.profile))
    done = world.chaos("--max-faults", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((world.out / "latest" / "chaos.json").read_bytes())
    assert (found["verdict"], found["counts"]["pass"]) == ("PASS", 2)
    assert [one["name"] for one in found["approval"]["signers"]] == ["ada", "ben"]
    header = load(Path(found["injections"][0]["folder"])).first(Header)
    assert header is not None
    assert header.plan.approval is not None
    page = (world.out / "latest" / "chaos.html").read_text(encoding="utf-8")
    assert "approved by ada (uid 4711" in page
    again = world.run(
        0, "chaos", "replay", found["folder"], "--approvals", str(world.place), "--out", str(world.out)
    )
    assert again.returncode == 0, again.stdout + again.stderr
    world.passwd.write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
    orphan = world.run(
        0, "chaos", "replay", found["folder"], "--approvals", str(world.place), "--out", str(world.out)
    )
    assert orphan.returncode == 3
    assert "uid 4711 is no account of this machine" in orphan.stderr


def test_one_person_is_not_two(world: World) -> None:
    """Nobody, one person, the same one twice, root, or files that root put there for others: all refused."""
    world.refused(world.trial(), "there is none")
    proposed = world.propose(ADA)
    sha256 = next(line for line in proposed.stdout.splitlines() if "signed by" in line).split()[-1]
    world.refused(world.trial(), "approved by ada only")
    world.refused(world.confirm(ADA, sha256), "ada has signed this already")
    world.refused(world.confirm(0, sha256), "root counts for nobody")
    mine = world.place / f"{sha256}.{ADA}.json"
    copied = world.place / f"{sha256}.0.json"
    shutil.copy(mine, copied)
    world.refused(world.trial(), "root counts for nobody")
    copied.rename(world.place / f"{sha256}.{BEN}.json")  # with Ben's name, and root's owner
    world.refused(world.trial(), "approved by ada only")
    world.refused(world.propose(0), "root counts for nobody")


def test_beyond_the_approval_is_refused(world: World) -> None:
    """Another scenario, a changed one, a session, a changed manifest: refused, and `up` always."""
    world.approved()
    world.refused(world.chaos(), "profile careful is not approved")
    where = ("-t", str(world.manifest), "--out", str(world.out))
    there = ("--approvals", str(world.place))
    world.refused(world.run(0, "run", "R25", *where, *there), "scenario R25:server is not approved")
    world.refused(world.run(0, "up", *where), "approval by two people")
    text = world.scenario.read_text(encoding="utf-8")
    world.scenario.write_text(text.replace('"kill"', '"segv"'), encoding="utf-8")
    world.refused(world.trial(), "scenario P1 was changed since")
    world.scenario.write_text(text, encoding="utf-8")
    with world.manifest.open("a", encoding="utf-8") as file:
        file.write("\n[limits]\nconcurrent_faults = 9\n")
    world.refused(world.trial(), "the manifest or its glue was changed")


def test_chaos_beyond_the_approval_is_refused(world: World) -> None:
    """Faults closer together, a session that would outlast the approval, and one in the background."""
    soon = (dt.datetime.now(tz=dt.UTC) + dt.timedelta(minutes=5)).isoformat()
    world.approved("--until", soon, what=str(world.profile))
    world.refused(world.chaos("--interval", "1s"), "faults 1 s apart")
    world.refused(world.chaos("--for", "10m"), "the approval ends")
    world.refused(world.chaos("--for", "10m", verb="start"), "the approval ends")


def test_market_hours_are_refused(world: World) -> None:
    """A market that is always open never lets anything begin; one that there is not cannot be approved."""
    world.approved("--market", "24/7")
    world.refused(world.trial(), "market hours")
    world.refused(world.propose(ADA, "--market", "XNOWHERE"), "no such market")


def test_time_is_limited(world: World) -> None:
    """Expired, not valid yet: refused; longer than a day is not even proposed."""
    now = dt.datetime.now(tz=dt.UTC)
    later = [(now + dt.timedelta(hours=hours)).isoformat() for hours in (2, 3, 27)]
    world.approved("--from", later[0], "--until", later[1])
    world.refused(world.trial(), "not valid yet")
    long = world.propose(ADA, "--from", later[0], "--until", later[2])
    assert (long.returncode, "24 h allowed" in long.stderr) == (64, True)


def test_unsafe_files_count_for_nothing(world: World) -> None:
    """A file that others may write, one that was changed, a folder without the sticky bit: refused."""
    sha256 = world.approved()
    bens = world.place / f"{sha256}.{BEN}.json"
    bens.chmod(0o664)
    world.refused(world.trial(), "may be written by others")
    bens.chmod(0o444)
    text = bens.read_text(encoding="utf-8")
    bens.write_text(text.replace("yearly", "weekly"), encoding="utf-8")
    world.refused(world.trial(), "was tampered with")
    bens.write_text(text, encoding="utf-8")
    world.place.chmod(0o777)
    world.refused(world.trial(), "lacks the sticky bit")


def test_the_library_is_not_imported_at_the_start() -> None:
    """It takes two seconds; only production pays them."""
    code = "import sys, blackstart.cli.run, blackstart.cli.chaos_work, blackstart.cli.approve_work; "
    code += "sys.exit('exchange_calendars' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", code), check=False, timeout=60).returncode == 0
