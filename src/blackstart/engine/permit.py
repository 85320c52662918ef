"""Who may: the permit fails closed (DESIGN section 5, R20, R23)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.errors import PermitError
from blackstart.scenario import radius

if TYPE_CHECKING:
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan

ALLOWED = ("sim", "dev", "test", "staging")


def check(manifest: Manifest) -> None:
    """Raise PermitError unless this target may be broken here."""
    if manifest.environment is None:
        raise PermitError(
            "the manifest does not say which environment this is",
            where=manifest.name,
            hint=f'add `environment = "{ALLOWED[0]}"` (or {", ".join(ALLOWED[1:])})',
        )
    if manifest.environment not in ALLOWED:
        raise PermitError(
            f"environment `{manifest.environment}` needs an approval by two people, and there is none",
            where=manifest.name,
            hint=f"run against one of: {', '.join(ALLOWED)}",
        )


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
