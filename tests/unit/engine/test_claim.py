"""A target that is there once is broken by one run at a time."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from blackstart.engine.claim import claimed, shared
from blackstart.errors import PermitError
from blackstart.model.manifest import Component, Host, Manifest, Process

HOST = Host(address="10.0.0.1")


def target(*, processes: bool = False, **found_by: Any) -> Manifest:
    """Make a manifest of one component."""
    return Manifest(
        schema=1,
        name="m",
        environment="test",
        components={"engine": Component(**found_by)},
        processes={"engine": Process(command=("x",))} if processes else {},
        hosts={"far": HOST} if "host" in found_by else {},
    )


SHARED: list[dict[str, Any]] = [
    {"pid_file": f"/run/{os.getpid()}"},
    {"match": f"engine {os.getpid()}"},
    {"unit": f"engine-{os.getpid()}.service", "manager": "user"},
    {"container": f"engine-{os.getpid()}"},
    {"pid_file": f"/run/{os.getpid()}", "host": "far"},
    {"unit": f"engine-{os.getpid()}.service", "processes": True},
]


@pytest.mark.parametrize("found_by", SHARED)
def test_two_runs_do_not_meet_in_one_target(found_by: dict[str, Any]) -> None:
    """By another manifest and name, too; when the first is over, the second may."""
    manifest = target(**found_by)
    assert shared(manifest)
    other = msgspec.structs.replace(manifest, name="other", components={"e": manifest.components["engine"]})
    with claimed(manifest), pytest.raises(PermitError, match="another run of Blackstart"), claimed(other):
        pass
    with claimed(other):
        pass


def test_what_each_trial_starts_for_itself_is_nobodys_else() -> None:
    """Two runs of such a target go side by side, as its trials do."""
    manifest = target(processes=True, process="engine")
    assert not shared(manifest)
    with claimed(manifest), claimed(manifest):
        pass


def test_a_claim_that_is_refused_leaves_none_behind() -> None:
    """Of two components one is another's: the first is given back."""
    one, two = (Component(pid_file=f"/run/{name}-{os.getpid()}") for name in ("one", "two"))
    both = msgspec.structs.replace(target(pid_file="x"), components={"one": one, "two": two})
    with claimed(msgspec.structs.replace(both, components={"two": two})):
        with pytest.raises(PermitError, match="two"), claimed(both):
            pass
        with claimed(msgspec.structs.replace(both, components={"one": one})):
            pass
