"""One trial from its plan to its result. It never raises: what went wrong is the result (R45)."""

from __future__ import annotations

import asyncio
import errno
import traceback
from typing import TYPE_CHECKING

from blackstart.engine.conductor import Analyse, Kit, conduct
from blackstart.errors import BlackstartError
from blackstart.model.outcome import Rpo, Rto, Trial
from blackstart.model.verdict import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from blackstart.model.instant import Instant
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Plan


async def run(plan: Plan, manifest: Manifest, folder: Path, kit: Kit, analyse: Analyse) -> Trial:
    """Conduct a trial in this process and analyse its history; cancelling ends it ("interrupted")."""
    began = kit.clock.now()
    try:
        history = await conduct(plan, manifest, folder, kit)
        return analyse(history)
    except asyncio.CancelledError:
        return unknown(plan, manifest, folder, began, "interrupted")
    except BlackstartError as error:
        return unknown(plan, manifest, folder, began, error.render())
    except OSError as error:
        reason = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run-folder"
        return unknown(plan, manifest, folder, began, f"{reason}: {error}")
    except Exception as error:  # noqa: BLE001 - R45: one trial never stops the others
        _keep_traceback(folder, error)
        return unknown(plan, manifest, folder, began, f"engine-error: {type(error).__name__}: {error}")


def unknown(plan: Plan, manifest: Manifest, folder: Path, began: Instant, reason: str) -> Trial:
    """Make the result of a trial that did not even get a history: nothing is known."""
    return Trial(
        id=plan.trial_id,
        scenario=plan.scenario.id,
        title=plan.scenario.title,
        requirement=plan.scenario.requirement,
        target=manifest.name,
        verdict=Verdict.UNKNOWN,
        reasons=(reason,),
        seed=plan.seed,
        replay=plan.replay,
        fault=None,
        rto=Rto(),
        rpo=Rpo(),
        validation={},
        checklist=(),
        started_wall_ns=began.wall_ns,
        folder=str(folder),
        approval=plan.approval,
    )


def _keep_traceback(folder: Path, error: Exception) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bug.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return  # the reason in the result says what there is to say
