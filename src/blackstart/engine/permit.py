"""Who may: the permit fails closed (DESIGN section 5, R20, R23)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from blackstart.engine import approval as approvals
from blackstart.engine import market
from blackstart.errors import PermitError
from blackstart.host import timekeeping
from blackstart.model.approval import Grant
from blackstart.scenario import approved, radius

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackstart.engine.approval import Signed
    from blackstart.model.approval import Approval, Signer
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan
    from blackstart.scenario.approved import Wish

ALLOWED = ("sim", "dev", "test", "staging")
PEOPLE = 2
ANEW = "have it approved anew: `blackstart approve`, `blackstart confirm`"


class _Asked(NamedTuple):
    """What an approval is sought for."""

    manifest: Manifest
    sha256: str
    wish: Wish
    place: Path
    now_ns: int
    timed: bool


def known(manifest: Manifest) -> None:
    """Raise PermitError unless the manifest says which environment this is."""
    if manifest.environment is None:
        raise PermitError(
            "the manifest does not say which environment this is",
            where=manifest.name,
            hint=f'add `environment = "{ALLOWED[0]}"` (or {", ".join(ALLOWED[1:])})',
        )


def check(manifest: Manifest) -> None:
    """Raise PermitError unless this target may be started and broken here without an approval."""
    known(manifest)
    if manifest.environment not in ALLOWED:
        raise PermitError(
            f"environment `{manifest.environment}` needs an approval by two people",
            where=manifest.name,
            hint="`blackstart approve` (docs/production.md); it allows trials and chaos, nothing else",
        )


def needed(manifest: Manifest) -> bool:
    """Whether nothing may be done to this target without an approval. Raises PermitError as `known`."""
    known(manifest)
    return manifest.environment not in ALLOWED


def grant(manifest: Manifest, wish: Wish, place: Path, now_ns: int, *, timed: bool = True) -> Grant:
    """Find the approval that allows a wish now. Raises PermitError with what is missing.

    Not `timed`: whether there is one for a later moment; then market hours are not asked either.
    """
    asked = _Asked(manifest, approvals.manifest_sha256(manifest), wish, place, now_ns, timed)
    refused: list[tuple[int, PermitError]] = []
    for found in approvals.read(place).values():
        approval = next((one.approval for one in found if one.approval is not None), None)
        if approval is not None and approval.target != manifest.name:
            continue
        try:
            return _grant(asked, found)
        except PermitError as error:
            refused.append((approval.until_wall_ns if approval is not None else 0, error))
    if not refused:
        raise PermitError(
            f"environment `{manifest.environment}` needs an approval by two people, and there is none",
            where=f"{manifest.name}: {place}",
            hint="`blackstart approve`, then another person: `blackstart confirm` (docs/production.md)",
        )
    _, last = max(refused, key=lambda one: one[0])
    others = f"; {len(refused) - 1} other(s) do not allow it either" if len(refused) > 1 else ""
    raise PermitError(last.what + others, where=last.where, hint=last.hint)


def _grant(asked: _Asked, found: Sequence[Signed]) -> Grant:
    """Return what one approval grants. Raises PermitError with the first thing that is missing."""
    where = f"{asked.manifest.name}: approval {found[0].path.name[:12]}"
    approval, signers = two_people(found, asked.now_ns, where)
    _fits(asked, approval, where)
    opens: dict[str, int] = {}
    if asked.timed:
        _credible(approval, where)
        opens = {one: market.next_open(one, asked.now_ns, approval.margin_s) for one in approval.markets}
    margin_ns = round(approval.margin_s * approved.NS)
    granted = Grant(
        approval=approval,
        sha256=approved.fingerprint(approval),
        signers=signers,
        used_by=approvals.name_of(os.getuid()),
        used_wall_ns=asked.now_ns,
        ends_wall_ns=min([approval.until_wall_ns, *(one - margin_ns for one in opens.values())]),
        opens=opens,
        place=str(asked.place),
    )
    if asked.timed and (what := too_late(granted, asked.wish.longest_s, asked.now_ns)) is not None:
        raise PermitError(what, where=where, hint="begin earlier, or wish for less")
    return granted


def _fits(asked: _Asked, approval: Approval, where: str) -> None:
    """Raise PermitError unless an approval is for this manifest, this moment and no less than the wish."""
    if approval.manifest_sha256 != asked.sha256:
        raise PermitError(
            "the manifest or its glue was changed since it was approved", where=where, hint=ANEW
        )
    late = approved.untimely(approval, asked.now_ns)
    if late is not None and (asked.timed or asked.now_ns >= approval.until_wall_ns):
        span = f"valid {market.said(approval.from_wall_ns)} to {market.said(approval.until_wall_ns)}"
        raise PermitError(late, where=where, hint=f"{span}; or {ANEW}")
    if (what := approved.beyond(approval, asked.manifest, asked.wish)) is not None:
        raise PermitError(what, where=where, hint=f"wish for less, or {ANEW}")


def two_people(found: Sequence[Signed], now_ns: int, where: str) -> tuple[Approval, tuple[Signer, ...]]:
    """Return what two people signed, and who they are. Raises PermitError when it is not both."""
    told = "; ".join(f"{one.path.name[65:]} {one.problem}" for one in found if one.problem)
    counted = [one for one in found if one.approval is not None]
    signers = approvals.signers(counted)
    if len(signers) < PEOPLE:
        names = f"{signers[0].name} only" if signers else "nobody who counts"
        what = f"approved by {names}, {PEOPLE} people are needed" + (f" ({told})" if told else "")
        hint = f"another person, with an account of their own: blackstart confirm {found[0].path.stem[:64]} …"
        raise PermitError(what, where=where, hint=hint)
    approval = counted[0].approval
    assert approval is not None
    if (wrong := approved.problem(approval)) is not None:
        raise PermitError(wrong, where=where, hint="have another one approved")
    latest_ns = max(*(one.changed_ns for one in counted), *(one.signed_wall_ns for one in signers))
    if now_ns < latest_ns:
        what = f"the clock cannot be believed: it is {market.said(now_ns)}, and a signature is of later"
        raise PermitError(what, where=where, hint="set the clock right")
    if approval.from_wall_ns - signers[0].signed_wall_ns > approved.AHEAD_S * approved.NS:
        what = f"it was signed more than {approved.AHEAD_S / 86400:g} days before it begins"
        raise PermitError(what, where=where, hint="have it approved anew, closer to the time")
    return approval, signers


def _credible(approval: Approval, where: str) -> None:
    """Raise PermitError when nothing keeps the clock, unless both people knew."""
    if not approval.unsynchronised_clock and not timekeeping.synchronised():
        what = "the clock cannot be believed: the kernel does not take it for synchronised"
        hint = "let NTP or PTP keep it (`timedatectl`), or approve with --unsynchronised-clock"
        raise PermitError(what, where=where, hint=hint)


def too_late(granted: Grant, longest_s: float, now_ns: int) -> str | None:
    """Say why something that may take so long cannot begin any more, or None."""
    if now_ns + longest_s * approved.NS <= granted.ends_wall_ns:
        return None
    first = min(granted.opens, key=lambda one: granted.opens[one], default=None)
    why = f"the approval ends {market.said(granted.approval.until_wall_ns)}"
    if first is not None and granted.ends_wall_ns < granted.approval.until_wall_ns:
        margin = f"{granted.approval.margin_s / 60:g} min"
        why = f"{first} opens {market.said(granted.opens[first])}, and {margin} before that all must be over"
    return f"it may take {longest_s:.0f} s with all its limits; {why}"


def withdrawn(granted: Grant, manifest: Manifest) -> str | None:
    """Say whether an approval in use no longer stands, and why; None when it does."""
    place = Path(granted.place)
    try:
        if approvals.manifest_sha256(manifest) != granted.approval.manifest_sha256:
            return "the glue was changed since it was approved"
        found = approvals.read(place).get(granted.sha256, [])
    except PermitError as error:
        return error.render()
    left = {one.uid for one in approvals.signers(found)}
    gone = [one.name for one in granted.signers if one.uid not in left]
    return f"{' and '.join(gone)} withdrew the approval" if gone else None


def check_plan(manifest: Manifest, plan: Plan) -> None:
    """Raise PermitError when a plan goes beyond the manifest's blast radius (R22)."""
    limits = manifest.limits
    broken = list(dict.fromkeys(one for step in plan.faults for one in step.components))
    outside = [one for one in broken if limits.components is not None and one not in limits.components]
    if outside:
        raise PermitError(
            f"{', '.join(outside)} may not be broken",
            where=f"{manifest.name}: {plan.trial_id}",
            hint="see `limits.components`",
        )
    for step in plan.faults if limits.symbols is not None else ():
        what = radius.beyond(manifest, step, limits.symbols or ())
        if what is not None:
            allowed = ", ".join(limits.symbols or ()) or "none"
            raise PermitError(
                f"{what}; allowed: {allowed}",
                where=f"{manifest.name}: {plan.trial_id}",
                hint="see `limits.symbols`",
            )
    if len(broken) > limits.concurrent_faults:
        raise PermitError(
            f"{len(broken)} components at once, {limits.concurrent_faults} allowed",
            where=f"{manifest.name}: {plan.trial_id}",
            hint="see `limits.concurrent_faults`",
        )
