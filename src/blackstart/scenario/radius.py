"""The blast radius by symbol (R22): which symbols a fault may disturb, and which it may not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import FaultStep


def touched(manifest: Manifest, step: FaultStep) -> frozenset[str] | None:
    """Return the symbols that a fault may disturb; None: all, or nobody can tell.

    Its own, where it is kept to some; else all that its components and links serve.
    """
    if step.symbols:
        return frozenset(step.symbols)
    parts = [
        *(manifest.components[name].symbols for name in step.components if name in manifest.components),
        *(manifest.links[name].symbols for name in step.links if name in manifest.links),
    ]
    served = [part for part in parts if part is not None]
    if not parts or len(served) < len(parts):
        return None
    return frozenset(symbol for part in served for symbol in part)


def beyond(manifest: Manifest, step: FaultStep, allowed: Collection[str]) -> str | None:
    """Say what a fault disturbs outside `allowed`, or None."""
    found = touched(manifest, step)
    if found is None:
        return f"{step.kind} disturbs every symbol, or nobody can tell which"
    outside = sorted(found - set(allowed))
    return f"{step.kind} disturbs {', '.join(outside)}" if outside else None


def untold(manifest: Manifest, service: str) -> str | None:
    """Say why nobody could tell whether a symbol is disturbed, or None."""
    if not manifest.symbols:
        return "the manifest names no `symbols`"
    spec = manifest.services.get(service)
    if spec is None or spec.symbol is None:
        return f"services.{service} has no `symbol`: its events do not tell of which symbol they are"
    return None


def unknown(manifest: Manifest, symbols: Iterable[str]) -> list[str]:
    """Return those that the manifest does not name."""
    return sorted(set(symbols) - set(manifest.symbols))
