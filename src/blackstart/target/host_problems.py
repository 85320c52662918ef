"""What is wrong with what a manifest says of other hosts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from blackstart.target.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackstart.model.manifest import Component, Manifest

WAYS = ("pid_file", "match", "url")
"""How a component's process can be found on another host."""

_ONLY_THERE = ("start", "ready", "restart", "restart_after_s")
_MANAGED_TOO = ("restart", "restart_after_s")


def problems(manifest: Manifest) -> Iterator[str]:
    """Yield each problem as `key.path: what is wrong`."""
    for name, host in manifest.hosts.items():
        if not host.address or host.address.startswith("-"):
            yield f"hosts.{name}.address: `{host.address}` is no address"
    if manifest.hosts and manifest.isolation:
        yield "isolation: a trial with a network and mounts of its own reaches no other host; leave it out"
    for name, component in manifest.components.items():
        yield from _component(manifest, name, component)
    for name, source in manifest.events.items():
        yield from _known(manifest, source.host, f"events.{name}.host")


def _component(manifest: Manifest, name: str, component: Component) -> Iterator[str]:
    key = f"components.{name}"
    if component.match is not None:
        try:
            re.compile(component.match)
        except re.error as error:
            yield f"{key}.match: not a regular expression: {error}"
    if component.host is None:
        given = [one for one in _ONLY_THERE if _given(component, one)]
        if given:
            hint = "what Blackstart starts on this host is under [processes.NAME]"
            others = ", units and containers" if given[0] in _MANAGED_TOO else ""
            yield f"{key}.{given[0]}: for components with `host`{others} only; {hint}"
        return
    yield from _known(manifest, component.host, f"{key}.host")
    yield from _there(manifest, name, component)


def _there(manifest: Manifest, name: str, component: Component) -> Iterator[str]:
    key = f"components.{name}"
    for way in ("process", "glue", "unit", "container"):
        if getattr(component, way) is not None:
            yield f"{key}.{way}: a component with `host` is found by {', '.join(WAYS)}"
    if component.url is not None and component.start:
        why = "an URL that does not answer does not tell that it does not run, and it may be started twice"
        yield f"{key}.start: {why}; have it found by pid_file or match"
    if component.ready.file is not None or component.ready.log is not None:
        yield f"{key}.ready: asked from this host: url or tcp"
    if name in manifest.processes:
        yield f"{key}: a process has the same name; choose another"
    if component.supervisor is not None:
        yield f"{key}.supervisor: nobody can be made to stand still on another host"


def _given(component: Component, key: str) -> bool:
    default = {"start": (), "ready": type(component.ready)(), "restart": None, "restart_after_s": 0.0}
    if key in _MANAGED_TOO and component.managed:
        return False
    return bool(getattr(component, key) != default[key])


def _known(manifest: Manifest, host: str | None, key: str) -> Iterator[str]:
    if host is not None and host not in manifest.hosts:
        yield f"{key}: no host `{host}`{did_you_mean(host, manifest.hosts)}; name it under [hosts.NAME]"
