"""Profiles as files: packaged ones by name, others by path, and what the manifest lays over them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blackstart.chaos import calendar
from blackstart.chaos.model import Profile
from blackstart.errors import PermitError, ScenarioError
from blackstart.model.stops import Stops
from blackstart.scenario.fields import no_amounts

if TYPE_CHECKING:
    from blackstart.chaos.model import Orders, Windows
    from blackstart.model.manifest import Manifest

OVERLAY = "chaos"
HINT = "see docs/chaos.md"


def packaged() -> list[str]:
    """Name the profiles that come with Blackstart."""
    folder = resources.files("blackstart") / "data" / "chaos"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load(name: str) -> Profile:
    """Load a packaged profile, or a file. Raises ScenarioError."""
    if name in packaged():
        text = (resources.files("blackstart") / "data" / "chaos" / f"{name}.toml").read_text("utf-8")
    elif name.endswith(".toml"):
        text = _read(Path(name))
    else:
        hint = f"known: {', '.join(packaged())}; or name a file"
        raise ScenarioError(f"no such profile: `{name}`", where="--profile", hint=hint)
    return _parse(text, name)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"cannot be read: {error.strerror}", where=str(path), hint=HINT) from error


def _parse(text: str, where: str) -> Profile:
    try:
        profile = msgspec.toml.decode(text, type=Profile)
    except msgspec.DecodeError as error:
        raise ScenarioError(str(error), where=where, hint=HINT) from error
    for key, what in no_amounts(profile):
        raise ScenarioError(f"{key}: {what}", where=where, hint=HINT)
    low, high = profile.interval_s
    if not 0 < low <= high or not 0 <= profile.overlap <= 1 or profile.concurrent_faults < 1:
        what = "`interval_s` is (from, to), `overlap` a share of 0 to 1, `concurrent_faults` at least 1"
        raise ScenarioError(what, where=where, hint=HINT)
    if not 0 < profile.load_share <= 1:
        raise ScenarioError("`load_share` is a share above 0 and up to 1", where=where, hint=HINT)
    if profile.radius is not None and not 0 < (profile.radius.share or 1) <= 1:
        raise ScenarioError("`radius.share` is a share above 0 and up to 1", where=where, hint=HINT)
    if profile.windows is not None and (wrong := calendar.problem(profile.windows)) is not None:
        raise ScenarioError(f"windows: {wrong}", where=where, hint=HINT)
    return profile


def laid_over(profile: Profile, manifest: Manifest) -> Profile:
    """Let the manifest's `[objectives.chaos]` change the stop conditions. Raises ScenarioError."""
    changes = manifest.objectives.get(OVERLAY, {})
    try:
        stop = msgspec.convert({**msgspec.to_builtins(profile.stop), **changes}, Stops, strict=False)
    except msgspec.ValidationError as error:
        raise ScenarioError(str(error), where=f"{manifest.name}: objectives.{OVERLAY}", hint=HINT) from error
    return msgspec.structs.replace(profile, stop=stop)


def check(profile: Profile, manifest: Manifest) -> None:
    """Raise PermitError unless this profile is for targets such as this; approvals are asked elsewhere."""
    if manifest.environment not in profile.environments:
        allowed = ", ".join(profile.environments)
        raise PermitError(
            f"profile `{profile.name}` is for {allowed}; this is `{manifest.environment}`",
            where=manifest.name,
            hint=f"choose another profile: {', '.join(packaged())}",
        )


def within(orders: Orders, now_ns: int) -> Orders:
    """Say until when at the latest something may be broken. Raises PermitError when that is not now."""
    windows = orders.profile.windows
    if windows is None:
        return msgspec.structs.replace(orders, not_after_wall_ns=None)
    if (found := calendar.blackout(windows, now_ns)) is not None:
        what = (
            f"a blackout until the end of {calendar.said(found[0], windows)}: {found[1] or 'no reason given'}"
        )
        raise PermitError(what, where=f"profile {orders.profile.name}", hint="see `windows.closed`")
    ends = [one.begin_ns for one, _ in calendar.blackouts(windows) if one.begin_ns > now_ns]
    if orders.scheduled:
        window = calendar.current(windows, now_ns)
        if window is None:
            hint = f"the next window: {next_window(windows, now_ns)}"
            raise PermitError("no window is open", where=f"profile {orders.profile.name}", hint=hint)
        ends.append(window.end_ns)
    return msgspec.structs.replace(orders, not_after_wall_ns=min(ends, default=None))


def next_window(windows: Windows, now_ns: int) -> str:
    """Say for people when the next window opens."""
    window = calendar.following(windows, now_ns)
    if window is None:
        return f"none within {calendar.AHEAD_DAYS} days"
    return calendar.said(window, windows)


def lighter(manifest: Manifest, profile: Profile) -> Manifest:
    """Return the manifest with the load that the profile keeps up, and what that load must reach."""
    share = profile.load_share
    if manifest.workload is None or share == 1:
        return manifest
    load = msgspec.structs.replace(manifest.workload, rate_per_s=manifest.workload.rate_per_s * share)
    services = {
        name: msgspec.structs.replace(one, minimum_per_s=_part(one.minimum_per_s, share))
        for name, one in manifest.services.items()
    }
    return msgspec.structs.replace(manifest, workload=load, services=services)


def _part(minimum: float | None, share: float) -> float | None:
    return None if minimum is None else max(min(minimum, 1.0), minimum * share)
