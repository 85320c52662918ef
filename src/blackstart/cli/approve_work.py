"""The work behind `blackstart approve`, `confirm` and `approvals`."""

from __future__ import annotations

import datetime as dt
import shlex
import time
from typing import TYPE_CHECKING, Any

import msgspec

from blackstart.chaos import approved as chaos_approved
from blackstart.chaos import profiles, radius
from blackstart.chaos.model import Orders
from blackstart.engine import approval as approvals
from blackstart.engine import market, permit
from blackstart.errors import PermitError, ScenarioError
from blackstart.host import timekeeping
from blackstart.model.approval import Approval
from blackstart.report.wording import moment
from blackstart.scenario import approved
from blackstart.scenario import load as scenarios
from blackstart.scenario.plan import plan
from blackstart.target import manifest as manifests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from blackstart.engine.approval import Signed
    from blackstart.model.manifest import Manifest
    from blackstart.scenario.approved import Wish

_MOMENT = "like 2026-11-28T06:00+01:00, or ...Z: with the offset from UTC"
_HASH_DIGITS = 64


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done to which target: chaos by a profile, or trials of scenarios."""

    target: str
    profile: str | None
    scenarios: tuple[str, ...]
    interval_s: float | None


def symbols(names: Sequence[str] | None, *, everything: bool) -> tuple[str, ...] | None:
    """Return which symbols may be disturbed; None: all. Raises ScenarioError unless that was said."""
    if bool(names) == everything:
        hint = "--symbol NAME for each, or --all-symbols"
        raise ScenarioError("say which symbols may be disturbed", where="--symbol", hint=hint)
    return None if everything else tuple(sorted(set(names or ())))


def wall_ns(text: str, where: str) -> int:
    """Read a moment. Raises ScenarioError, also when it does not say its time zone."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ScenarioError(f"`{text}` is no moment", where=where, hint=_MOMENT) from None
    if found.tzinfo is None:
        raise ScenarioError(f"`{text}` does not say its time zone", where=where, hint=_MOMENT)
    return round(found.timestamp()) * approved.NS


def approve(aim: Aim, limits: dict[str, Any], *, begin: str | None, end: str, place: Path) -> int:
    """Put an approval together, sign it as the first person, and show it with its hash.

    Raises ScenarioError and PermitError for one that would be refused or would not allow what it names.
    """
    manifest = manifests.load(aim.target)
    now_ns = time.time_ns()
    least_s, wish = _wish(aim, manifest)
    approval = Approval(
        target=manifest.name,
        manifest_sha256=approvals.manifest_sha256(manifest),
        what=wish.what,
        interval_s=least_s,
        from_wall_ns=now_ns if begin is None else wall_ns(begin, "--from"),
        until_wall_ns=wall_ns(end, "--until"),
        **limits,
    )
    _would_do(approval, manifest, wish, now_ns)
    path = approvals.sign(place, approval, now_ns)
    sha256 = approved.fingerprint(approval)
    show_content(approval)
    print(f"proposed, signed by {approvals.name_of(path.stat().st_uid)}: {sha256}")
    other = "" if place == approvals.PLACE else f" --approvals {shlex.quote(str(place))}"
    print(f"  \u2192 another person looks at it:  blackstart approvals {sha256[:12]}{other}")
    print(f"  \u2192 and confirms it:  blackstart confirm {sha256} --target {shlex.quote(aim.target)}{other}")
    return 0


def _wish(aim: Aim, manifest: Manifest) -> tuple[float, Wish]:
    """Return the least time between two faults, and what may come to be done."""
    if (aim.profile is None) == (not aim.scenarios):
        hint = "--profile production for chaos, or --scenario R25 for trials"
        raise ScenarioError("say what is to be approved, one of both", where="--profile", hint=hint)
    if aim.profile is None:
        if not permit.needed(manifest):
            raise ScenarioError(
                f"environment `{manifest.environment}` needs no approval", where=manifest.name
            )
        chosen = scenarios.select(scenarios.packaged(), scenarios.files(list(aim.scenarios)))
        plans = [one for scenario, only in chosen for one in plan(scenario, manifest, seed=0, only=only)]
        return 0.0, approved.of_trials(plans, manifest)
    profile = profiles.laid_over(profiles.load(aim.profile), manifest)
    profiles.check(profile, manifest)
    if not (profile.approval or permit.needed(manifest)):
        raise ScenarioError(f"profile `{profile.name}` needs no approval", where=manifest.name)
    orders = Orders(target=aim.target, profile=profile, seed=0, for_s=0.0)
    wish = chaos_approved.wish(orders, manifest, radius.allowed(profile, manifest, 0))
    return aim.interval_s if aim.interval_s is not None else profile.interval_s[0], wish


def _would_do(approval: Approval, manifest: Manifest, wish: Wish, now_ns: int) -> None:
    """Raise what a run by it would be refused for, before anybody signs."""
    where = "this approval"
    wrong = approved.problem(approval)
    if wrong is None and approval.until_wall_ns <= now_ns:
        wrong = "it has expired already"
    if wrong is None and approval.from_wall_ns - now_ns > approved.AHEAD_S * approved.NS:
        wrong = f"it begins in more than {approved.AHEAD_S / 86400:g} days"
    if wrong is not None:
        raise ScenarioError(wrong, where=where, hint="see docs/production.md")
    _known(approval, manifest)
    narrowed = msgspec.structs.replace(wish, interval_s=None, steps=_meant(approval, wish))
    # which symbols a session disturbs is decided by its seed and its options
    allowed = approval if wish.interval_s is None else msgspec.structs.replace(approval, symbols=None)
    if (what := approved.beyond(allowed, manifest, narrowed)) is not None:
        raise PermitError(
            f"it would not allow what it names: {what}", where=where, hint="see docs/production.md"
        )
    for one in approval.markets:
        market.calendar(one, approval.from_wall_ns)
    if not (approval.unsynchronised_clock or timekeeping.synchronised()):
        hint = "let NTP or PTP keep it (`timedatectl`), or say --unsynchronised-clock"
        raise PermitError("the kernel does not take this clock for synchronised", where=where, hint=hint)


def _meant(approval: Approval, wish: Wish) -> tuple[Any, ...]:
    """Return the faults that lie within the approved places: a session is narrowed to these by options."""
    inside = [
        step
        for step in wish.steps
        if set(step.components) <= set(approval.components) and set(step.links) <= set(approval.links)
    ]
    return tuple(inside) or wish.steps


def _known(approval: Approval, manifest: Manifest) -> None:
    unknown = [one for one in approval.components if one not in manifest.components]
    unknown += [one for one in approval.links if one not in manifest.links]
    unknown += [one for one in approval.symbols or () if one not in manifest.symbols]
    if unknown:
        hint = f"it has: {', '.join([*manifest.components, *manifest.links, *manifest.symbols])}"
        raise ScenarioError(f"the manifest has no {', '.join(unknown)}", where=manifest.name, hint=hint)


def confirm(sha256: str, target: str, place: Path) -> int:
    """Sign what another person proposed. Raises PermitError when it is not what this target is."""
    found = approvals.read(place).get(sha256, [])
    approval = next((one.approval for one in found if one.approval is not None), None)
    where = f"{place}: {sha256[:12]}"
    if approval is None or len(sha256) != _HASH_DIGITS:
        told = "; ".join(f"{one.path.name[65:]} {one.problem}" for one in found if one.problem)
        hint = "the whole hash as `blackstart approve` showed it; `blackstart approvals` lists all"
        raise PermitError(f"nobody proposed that{f' ({told})' if told else ''}", where=where, hint=hint)
    manifest = manifests.load(target)
    if (approval.target, approval.manifest_sha256) != (manifest.name, approvals.manifest_sha256(manifest)):
        hint = "it was changed, or lies in another folder: have it proposed anew"
        raise PermitError(f"it is not for this manifest: {target}", where=where, hint=hint)
    if (wrong := approved.problem(approval)) is not None:
        raise PermitError(wrong, where=where, hint="have another one proposed")
    show_content(approval)
    approvals.sign(place, approval, time.time_ns())
    both = approvals.read(place)[sha256]
    _, signers = permit.two_people(both, time.time_ns(), where)
    print(f"approved by {' and '.join(one.name for one in signers)}: {sha256}")
    return 0


def show(beginning: str, place: Path) -> int:
    """Print every approval of a place whose hash begins so; status 1 when there is none."""
    found = {name: one for name, one in approvals.read(place).items() if name.startswith(beginning)}
    for name, files in found.items():
        print(name)
        approval = next((one.approval for one in files if one.approval is not None), None)
        if approval is not None:
            show_content(approval)
        for one in files:
            if one.signer is not None:
                who, when = one.signer, moment(one.signer.signed_wall_ns)
                print(f"  signed by {who.name} (uid {who.uid}), {when}")
            else:
                print(f"  does not count: {one.path.name[65:]} {one.problem}")
        print(f"  {state(files, time.time_ns())}")
    if not found:
        print(f"no approval in {place}")
    return 0 if found else 1


def state(files: Sequence[Signed], now_ns: int) -> str:
    """Say how an approval stands, apart from market hours."""
    try:
        approval, _ = permit.two_people(files, now_ns, "")
    except PermitError as error:
        return error.what
    return approved.untimely(approval, now_ns) or "approved, and valid now outside of market hours"


def show_content(approval: Approval) -> None:
    """Print what an approval says."""
    for name, text in _lines(approval):
        print(f"  {name:<12} {text}")


def _lines(approval: Approval) -> Iterator[tuple[str, str]]:
    yield "target", f"{approval.target} (manifest {approval.manifest_sha256[:12]})"
    yield "what", ", ".join(f"{name} ({sha256[:12]})" for name, sha256 in approval.what.items())
    yield "faults", f"{', '.join(approval.kinds)}; {approval.concurrent} at once"
    if approval.interval_s:
        yield "", f"{approval.interval_s:g} s apart"
    yield "components", ", ".join(approval.components) or "none"
    yield "links", ", ".join(approval.links) or "none"
    yield "symbols", "all" if approval.symbols is None else ", ".join(approval.symbols)
    yield "from", moment(approval.from_wall_ns)
    yield "until", moment(approval.until_wall_ns)
    margin = f"and {approval.margin_s / 60:g} min before and after"
    yield "never in", f"the hours of {', '.join(approval.markets)}, {margin}"
    if approval.unsynchronised_clock:
        yield "clock", "may be one that nothing keeps"
    yield "reason", approval.reason
