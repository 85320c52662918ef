"""A target that is there once, for all trials and all runs: who breaks it now.

Blackstart starts most targets itself, for each trial anew. One that it attaches to would be broken by two at
once: each would end the other's fault, and judge it.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from blackstart.errors import PermitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackstart.model.manifest import Component, Manifest


def shared(manifest: Manifest) -> bool:
    """Whether trials meet in this target, because not all of it is started for each of them."""
    managed = any(one.managed for one in manifest.components.values())
    return managed or bool(manifest.hosts) or not manifest.processes


@contextmanager
def claimed(manifest: Manifest) -> Iterator[None]:
    """Keep other runs of this host from breaking the same components meanwhile, whoever's they are.

    Raises PermitError when one does already. An abstract socket a component: it ends with us, however we end.
    Runs in another network namespace are not seen.
    """
    with ExitStack() as held:
        for name, component in manifest.components.items() if shared(manifest) else ():
            held.enter_context(_claim(_identity(manifest, component), f"{manifest.name}: {name}"))
        yield


@contextmanager
def _claim(identity: str, where: str) -> Iterator[None]:
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(f"\0blackstart-claim-{digest}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            hint = "let it end, or `blackstart halt` it; two at once would judge each other's faults"
            raise PermitError("another run of Blackstart breaks it now", where=where, hint=hint) from error
        yield


def _identity(manifest: Manifest, component: Component) -> str:
    """Return what stands for the component in every manifest that names it in the same way."""
    found_by = (
        component.process and f"{manifest.name}/{component.process}",
        component.pid_file,
        component.match,
        component.url and f"{component.url} {component.select}",
        component.glue and f"{manifest.glue}/{component.glue}",
        component.unit and f"{component.manager} {component.unit}",
        component.container,
    )
    address = manifest.hosts[component.host].address if component.host else ""
    return f"{address}|{'|'.join(one or '' for one in found_by)}"
