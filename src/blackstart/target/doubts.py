"""What a right manifest leaves unseen: its trials can be PASS, and mean less than one thinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackstart.model.manifest import Manifest


def doubts(manifest: Manifest) -> list[str]:
    """Say what would not be found, and what to write. An empty list: nothing of the kind."""
    return [*_probes(manifest), *_streams(manifest)]


def _probes(manifest: Manifest) -> Iterator[str]:
    if manifest.workload is None:
        return
    for name, service in manifest.services.items():
        if service.source.startswith("probe:"):
            yield (
                "RTO ends at a probe although there is a [workload]: what accepts may answer no write; "
                f'write [services.{name}] source = "workload", key = "id"'
            )


def _streams(manifest: Manifest) -> Iterator[str]:
    for name, stream in manifest.streams.items():
        if not stream.content and stream.ordered is None:
            yield (
                f"stream {name}: neither content nor order is compared: changed or reordered events would "
                f"not be found; write content = [fields], and ordered = field, in [streams.{name}]"
            )
