"""The supervisor's HTTP surface (docs/reference/firm-interface.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from paperfirm.http import HttpError, Response, common_routes, fetch, json, problem, readiness
from paperfirm.wire import Promote, Replication, Restart

if TYPE_CHECKING:
    from paperfirm.http import Request, Router
    from paperfirm.supervisor.firm import Supervised

FORWARD_LIMIT_S = 10.0


def routes(supervised: Supervised) -> Router:
    """Return all routes."""
    router = common_routes(
        lambda: None,
        lambda: metrics(supervised),
        component="supervisor",
        alerts=supervised.alerts,
        prefix="paperfirm_supervisor",
    )

    async def ready(_: Request) -> Response:
        return readiness(await supervised.not_ready(), degraded=supervised.parts)

    async def state(request: Request) -> Response:
        return await forward(supervised, request)

    async def promote(request: Request) -> Response:
        try:
            asked = msgspec.json.decode(request.body, type=Promote)
        except msgspec.DecodeError as error:
            return problem(400, str(error), 'send {"engine": NAME, "epoch": PRESENT}')
        answer = await supervised.promote(asked)
        return json(answer, 200 if answer.granted else 409)

    router.add("GET", "/ready", ready)
    router.add("GET", "/components", lambda _: json(components(supervised)))
    router.add("GET", "/state/", state)
    router.add("POST", "/promote", promote)
    router.add("POST", "/checkpoint", state)
    router.add("POST", "/reconcile", state)
    router.add("POST", "/restart", lambda request: restart(supervised, request))
    router.add("POST", "/replication", lambda request: replication(supervised, request))
    return router


def replication(supervised: Supervised, request: Request) -> Response:
    """Register whether the standby is in step."""
    try:
        report = msgspec.json.decode(request.body, type=Replication)
    except msgspec.DecodeError as error:
        return problem(400, str(error), 'send {"engine": NAME, "epoch": PRESENT, "in_sync": true|false}')
    if not supervised.arbiter.replication(report):
        tenure = supervised.arbiter.tenure
        return problem(
            409, f"{tenure.primary} is primary of epoch {tenure.epoch}", "this engine is fenced: stop"
        )
    return json({"registered": True})


def restart(supervised: Supervised, request: Request) -> Response:
    """End a server so that it is started again."""
    try:
        asked = msgspec.json.decode(request.body, type=Restart)
    except msgspec.DecodeError as error:
        return problem(400, str(error), 'send {"component": "nats"|"postgres", "by": NAME, "reason": TEXT}')
    if not supervised.restart(asked):
        return problem(404, f"{asked.component} is no server of ours", "restart your own server yourself")
    return json({"restarting": asked.component}, 202)


def components(supervised: Supervised) -> dict[str, object]:
    """Return every child with its process, role and state."""
    listed = {
        name: {
            "pid": child.pid,
            "role": supervised.role(name),
            "state": child.state,
            "restarts": child.restarts,
            "started_mono_ns": child.started_ns,
            "heartbeat_mono_ns": child.heartbeat_ns,
        }
        for name, child in supervised.children.items()
    }
    return {"components": listed, "primary": supervised.primary, "epoch": supervised.arbiter.tenure.epoch}


async def forward(supervised: Supervised, request: Request) -> Response:
    """Hand a state request to the present primary."""
    primary = supervised.primary
    if primary is None:
        return problem(503, "there is no primary", "ask again: an engine is being promoted or started")
    query = f"?{urlencode(request.query)}" if request.query else ""
    try:
        url = f"{supervised.url(primary)}{request.path}{query}"
        status, body = await fetch(url, method=request.method, limit_s=FORWARD_LIMIT_S)
    except HttpError as error:
        return problem(503, str(error), "ask again: the primary is going or coming")
    return Response(status, body)


def metrics(supervised: Supervised) -> dict[str, float]:
    """Return counters of all children for Prometheus."""
    values: dict[str, float] = {"epoch": supervised.arbiter.tenure.epoch}
    for name, child in supervised.children.items():
        values[f'restarts_total{{component="{name}"}}'] = child.restarts
        values[f'scrapes_total{{component="{name}"}}'] = supervised.scrapes[name]
        values[f'scrape_failures_total{{component="{name}"}}'] = supervised.scrape_failures[name]
        values[f'rss_bytes{{component="{name}"}}'] = child.rss_bytes
        values[f'up{{component="{name}"}}'] = float(child.state == "running")
    return values
