"""Which ports a link has right now: numbers, `host:port`, URLs, and lists of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blackstart.errors import ManifestError, TargetError
from blackstart.target.variables import expand_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blackstart.model.manifest import Manifest

_HIGHEST = 65535


def ports(manifest: Manifest, name: str, values: Mapping[str, Any]) -> list[int]:
    """Expand the ports of a link; that of its proxy where no others are given.

    Raises TargetError for no such link, ManifestError for no port.
    """
    where = f"links.{name}.ports"
    if name not in manifest.links:
        raise TargetError(f"the manifest has no link `{name}`", where=manifest.name)
    link = manifest.links[name]
    told = link.ports if link.ports or link.proxy is None else (f"{{proxy.{name}}}",)
    return list(dict.fromkeys(_flat(expand_all(told, values, where=where), where)))


def _flat(value: Any, where: str) -> Iterator[int]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one, where)
    else:
        yield _port(value, where)


def _port(value: Any, where: str) -> int:
    text = str(value)
    try:
        found = int(text) if text.isdigit() else urlsplit(text if "//" in text else f"//{text}").port
    except ValueError:
        found = None
    if found is None or not 0 < found <= _HIGHEST:
        hint = "a number, `host:port`, a URL with a port, or a variable that holds one or several"
        raise ManifestError(f"{text!r} names no port", where=where, hint=hint)
    return found
