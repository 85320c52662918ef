"""What the supervisor runs: the two servers, unless the user has their own, and six components."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from paperfirm.config import COMPONENTS, ENGINES
from paperfirm.http import HttpError, fetch
from paperfirm.servers import Identity, Kind, is_ready
from paperfirm.supervisor.child import Spec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from paperfirm.config import Firm
    from paperfirm.servers import ServerPlan

MODULES = dict.fromkeys(ENGINES, "paperfirm.engine")
ENGINE_STOP_S = 15.0
"""An engine pulls its quotes and writes a checkpoint before it goes."""
PROBE_LIMIT_S = 0.4


def component_spec(firm: Firm, name: str) -> Spec:
    """Return how to run one of our own components."""
    engine = name in ENGINES
    argv = [sys.executable, "-P", "-m", MODULES.get(name, f"paperfirm.{name}"), "--dir", firm.dir]
    return Spec(
        name=name,
        argv=[*argv, "--name", name] if engine else argv,
        log=firm.path / "logs" / f"{name}.log",
        identity=Identity(Kind.SAME, os.geteuid(), os.getegid()),
        is_ready=_answers_health(firm.ports[name].http),
        stop_limit_s=ENGINE_STOP_S if engine else 5.0,
        own=True,
    )


def component_specs(firm: Firm) -> list[Spec]:
    """Return all components; those that need longest to be useful come first."""
    return [
        component_spec(firm, name)
        for name in (*ENGINES, *(other for other in COMPONENTS if other not in ENGINES))
    ]


def server_spec(plan: ServerPlan) -> Spec:
    """Return how to run a server."""
    return Spec(
        name=plan.name,
        argv=plan.argv,
        log=plan.log,
        identity=plan.identity,
        is_ready=_says_so(plan) if plan.ready_file else _accepts(plan.port),
        stop_signal=plan.stop_signal,
        death_signal=plan.death_signal,
    )


def _answers_health(port: int) -> Callable[[int], Awaitable[bool]]:
    async def probe(_pid: int) -> bool:
        try:
            status, _ = await fetch(f"http://127.0.0.1:{port}/health", limit_s=PROBE_LIMIT_S)
        except HttpError:
            return False
        return status == 200  # noqa: PLR2004 - HTTP OK

    return probe


def _says_so(plan: ServerPlan) -> Callable[[int], Awaitable[bool]]:
    async def probe(pid: int) -> bool:
        return is_ready(plan, pid)

    return probe


def _accepts(port: int) -> Callable[[int], Awaitable[bool]]:
    async def probe(_pid: int) -> bool:
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    return probe
