"""The proxies of a manifest's links: one process for all, started before the target, told where they lead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackstart.errors import ManifestError, TargetError
from blackstart.host import helper
from blackstart.target.variables import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackstart.contracts import Protect
    from blackstart.model.manifest import Link, Manifest


class Proxies:
    """Those of one target."""

    def __init__(self, manifest: Manifest, values: dict[str, Any], protect: Protect) -> None:
        self._links: dict[str, Link] = {name: one for name, one in manifest.links.items() if one.proxy}
        self._values, self._protect = values, protect
        self._helper: helper.Helper | None = None
        self._told: dict[str, tuple[str, int]] = {}

    async def start(self) -> None:
        """Listen; from now on `{proxy.NAME}` is known."""
        if not self._links:
            return
        self._helper = await helper.start("proxy", self._protect)
        known = self._values.setdefault("proxy", {})
        for name, link in self._links.items():
            assert link.proxy is not None
            host, port = _address(link.proxy.listen, self._values, f"links.{name}.proxy.listen")
            answer = await self._helper.ask("listen", link=name, protocol=link.protocol, host=host, port=port)
            known[name] = f"{host}:{answer['port']}"

    async def lead(self) -> None:
        """Tell each where it leads, as far as that is known by now."""
        for name, link in self._links.items():
            assert link.proxy is not None
            try:
                to = _address(link.proxy.upstream, self._values, f"links.{name}.proxy.upstream")
            except ManifestError:
                continue  # its process was not started yet
            if self._told.get(name) != to:
                await self.ask(name, "upstream", {"host": to[0], "port": to[1]})
                self._told[name] = to

    async def ask(self, link: str, do: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Have one thing done. Raises TargetError when the link has no proxy, FaultError when it ended."""
        if self._helper is None or link not in self._links:
            raise TargetError("has no proxy", where=f"links.{link}")
        return await self._helper.ask(do, link=link, **values)

    @property
    def pid(self) -> int:
        """Return the process behind them, 0 when there is none."""
        return 0 if self._helper is None else self._helper.ref.pid

    async def close(self) -> None:
        """End it; idempotent."""
        held, self._helper = self._helper, None
        if held is not None:
            await held.close()


def _address(text: str, values: Mapping[str, Any], where: str) -> tuple[str, int]:
    host, _, port = expand(text, values, where=where).rpartition(":")
    if not host or not port.isdigit():
        raise ManifestError(f"{text!r} is no `host:port`", where=where)
    return host, int(port)
