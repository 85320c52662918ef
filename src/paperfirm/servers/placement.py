"""Where a server's files lie, so that the identity it runs under can reach them."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from paperfirm.servers.identity import Identity, Kind

PREFIX = "paperfirm-"
# Survives a reboot, as a database must; folders in it are private (mkdtemp).
SCRATCH = Path("/var/tmp")  # noqa: S108


def cache_folder() -> Path:
    """Return `~/.cache/blackstart` (or below XDG_CACHE_HOME), made if need be.

    A scratch folder of the user's if there is no home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    folder = base / "blackstart"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = SCRATCH / f"blackstart-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        _refuse_foreign(folder)
    return folder


def data_folder(directory: Path, identity: Identity) -> Path:
    """Return where the data of `directory` lie: in it, or elsewhere when the identity cannot get there.

    `directory/elsewhere` records the other place; the other place records `directory` (`owner`), so that
    left-overs whose owner is gone can be cleared by `sweep`.
    """
    if identity.kind is not Kind.SET_UID or reachable(directory, identity):
        return directory / "data"
    pointer = directory / "elsewhere"
    if pointer.exists():
        return Path(pointer.read_text(encoding="utf-8").strip()) / "data"
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=SCRATCH))
    (folder / "owner").write_text(str(directory), encoding="utf-8")
    give_to(folder, identity)
    pointer.write_text(str(folder), encoding="utf-8")
    return folder / "data"


def sweep() -> list[Path]:
    """Remove folders below the scratch whose owner directory no longer exists; return what was removed."""
    removed = []
    for folder in SCRATCH.glob(f"{PREFIX}*"):
        try:
            owner = Path((folder / "owner").read_text(encoding="utf-8").strip())
            if not owner.exists():
                shutil.rmtree(folder)
                removed.append(folder)
        except OSError:
            continue  # another user's, or being removed by somebody else
    return removed


def executable_tree(tree: Path, identity: Identity) -> Path:
    """Return `tree`, or a copy of it that the identity can reach (made once, kept in the scratch)."""
    if identity.kind is not Kind.SET_UID or reachable(tree, identity):
        return tree
    copy = SCRATCH / f"blackstart-programs-{tree.stat().st_mtime_ns:x}"
    if copy.exists():
        _refuse_foreign(copy)
    else:
        staged = Path(tempfile.mkdtemp(prefix=".blackstart-programs-", dir=SCRATCH))
        for part in (tree, *tree.parent.glob(f"{tree.name}.libs")):
            shutil.copytree(
                part,
                staged / part.name,
                symlinks=True,
                ignore=shutil.ignore_patterns("pginstall18", "__pycache__"),
            )
        staged.chmod(0o755)
        try:
            staged.rename(copy)
        except OSError:  # somebody else was faster
            shutil.rmtree(staged, ignore_errors=True)
    return copy / tree.name


def reachable(path: Path, identity: Identity) -> bool:
    """Say whether a uid that owns nothing on the way may pass through every folder down to `path`."""
    resolved = path.resolve()
    return all(_passable(folder, identity) for folder in (resolved, *resolved.parents))


def give_to(path: Path, identity: Identity) -> None:
    """Make `path` and everything in it belong to the identity, where it differs from ours."""
    if identity.kind is not Kind.SET_UID:
        return
    os.chown(path, identity.uid, identity.gid)
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder) / name, identity.uid, identity.gid, follow_symlinks=False)


def _passable(folder: Path, identity: Identity) -> bool:
    status = folder.stat()
    if status.st_uid == identity.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & stat.S_IXOTH)


def _refuse_foreign(folder: Path) -> None:
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(
            f"{folder} belongs to somebody else: remove it, or set XDG_CACHE_HOME to a folder of yours"
        )
