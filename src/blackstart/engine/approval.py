"""The files of an approval: each person signs with a file of their own, in a folder where nobody else can.

A signature is `SHA256.UID.json`. What counts is who owns the file, told by the kernel: two accounts that
people log in with, neither of them root. What that proves and what not: docs/adr/0012.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from blackstart.errors import PermitError
from blackstart.model.approval import Signature, Signer
from blackstart.scenario.approved import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blackstart.model.approval import Approval
    from blackstart.model.manifest import Manifest

PLACE = Path("/var/lib/blackstart/approvals")
_LARGEST = 1 << 16
_OVERFLOW_UID = 65534
_NO_LOGIN = ("nologin", "false", "sync")
_ALL_UIDS = ["0", "0", "4294967295"]
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Signed(NamedTuple):
    """One file as it was found: whose it is, what it says, or why it counts for nothing."""

    path: Path
    signer: Signer | None = None
    approval: Approval | None = None
    problem: str = ""
    changed_ns: int = 0


def manifest_sha256(manifest: Manifest) -> str:
    """Return the hash of a manifest as it was loaded, its folder and the glue beside it included.

    Raises PermitError when the glue cannot be read.
    """
    parts = [fingerprint(msgspec.structs.replace(manifest, folder=os.path.realpath(manifest.folder)))]
    if manifest.glue is not None:
        path = Path(manifest.folder) / manifest.glue
        try:
            parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            raise PermitError(f"the glue cannot be read: {error.strerror}", where=str(path)) from error
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def safe(place: Path) -> Path:
    """Return where a place really is: where nobody but root can put another file in that of a person's.

    It and every folder above belong to root; where others may write, only with the sticky bit. Raises
    PermitError when that is not so.
    """
    hint = f"as root: install -d -m 1777 {place}; then `blackstart approve` (docs/production.md)"
    try:
        real = place.resolve(strict=True)
        for folder in (real, *real.parents):
            if (why := unsafe_folder(folder.stat())) is not None:
                raise PermitError(f"not safe for approvals: {folder} {why}", where=str(place), hint=hint)
    except OSError as error:
        what = f"there is no folder for approvals by two people: {error.strerror}"
        raise PermitError(what, where=str(place), hint=hint) from error
    if Path("/proc/self/uid_map").read_text(encoding="ascii").split() != _ALL_UIDS:
        what = "in a user namespace nobody can tell whose file it is"
        raise PermitError(what, where=str(place), hint="run it outside of rootless containers")
    return real


def unsafe_folder(found: os.stat_result) -> str | None:
    """Say why a folder may not hold signatures, or None."""
    if not stat.S_ISDIR(found.st_mode):
        return "is no folder"
    if found.st_uid != 0:
        return f"belongs to uid {found.st_uid}, not to root"
    if found.st_mode & _OTHERS and not found.st_mode & stat.S_ISVTX:
        return "may be changed by others (it lacks the sticky bit)"
    return None


def unsafe_file(found: os.stat_result) -> str | None:
    """Say why a file cannot be a signature, or None."""
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if found.st_mode & _OTHERS:
        return "may be written by others (chmod go-w)"
    if found.st_nlink != 1:
        return "has several names"
    return None if found.st_size <= _LARGEST else "is too large"


def nobody(uid: int) -> str | None:
    """Say why an account does not stand for a person, or None."""
    if uid == 0:
        return "root counts for nobody: it can be anybody"
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return f"uid {uid} is no account of this machine"
    if uid == _OVERFLOW_UID or os.path.basename(account.pw_shell) in _NO_LOGIN:  # noqa: PTH119 - a word
        return f"{account.pw_name} is a service account: nobody logs in with it"
    return None


def name_of(uid: int) -> str:
    """Return the name of an account, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def sign(place: Path, approval: Approval, now_ns: int) -> Path:
    """Sign as the user that runs this; returns the file. Raises PermitError when that would not count."""
    place = safe(place)
    uid = os.geteuid()
    if (why := nobody(uid)) is not None:
        hint = "sign with the account that you log in with, not by sudo"
        raise PermitError(f"this cannot be signed: {why}", where=str(place), hint=hint)
    sha256 = fingerprint(approval)
    path = place / f"{sha256}.{uid}.json"
    text = msgspec.json.format(
        msgspec.json.encode(Signature(approval=approval, sha256=sha256, signed_wall_ns=now_ns))
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            os.fchmod(descriptor, 0o444)
            file.write(text + b"\n")
            file.flush()
            os.fsync(descriptor)
    except FileExistsError:
        what = f"{name_of(uid)} has signed this already, and counts once"
        raise PermitError(what, where=str(path), hint="another person must confirm it") from None
    except OSError as error:
        what = f"cannot be signed: {error.strerror}"
        raise PermitError(what, where=str(path), hint="the folder must let you write") from error
    return path


def read(place: Path) -> dict[str, list[Signed]]:
    """Return every file of a place by the hash in its name. Raises PermitError when the place is not safe."""
    place = safe(place)
    found: dict[str, list[Signed]] = {}
    for path in sorted(place.glob("*.json")):
        found.setdefault(path.name.partition(".")[0], []).append(_signed(path))
    return found


def _signed(path: Path) -> Signed:
    """Read one file; what is checked and what is read is the same open file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Signed(path, problem=f"cannot be read: {error.strerror}")
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        found = os.fstat(descriptor)
        why = unsafe_file(found) or nobody(found.st_uid)
        if why is not None:
            return Signed(path, problem=why)
        return _understood(path, found, file.read(_LARGEST))


def _understood(path: Path, found: os.stat_result, text: bytes) -> Signed:
    try:
        said = msgspec.json.decode(text, type=Signature)
    except msgspec.DecodeError as error:
        return Signed(path, problem=f"is no signature: {error}")
    sha256 = fingerprint(said.approval)
    if said.sha256 != sha256 or path.name != f"{sha256}.{found.st_uid}.json":
        return Signed(path, problem="was tampered with: hash, name and owner do not agree with what it says")
    signer = Signer(uid=found.st_uid, name=name_of(found.st_uid), signed_wall_ns=said.signed_wall_ns)
    return Signed(path, signer, said.approval, changed_ns=found.st_ctime_ns)


def signers(found: Iterable[Signed]) -> tuple[Signer, ...]:
    """Return whose signatures count, each account once, the first to sign first."""
    counted = {one.signer.uid: one.signer for one in found if one.signer is not None}
    return tuple(sorted(counted.values(), key=lambda one: (one.signed_wall_ns, one.uid)))


@contextmanager
def alone(place: Path | None) -> Iterator[None]:
    """Hold the place while something runs by an approval: two at once would be more than was approved.

    Raises PermitError when somebody else does. None: nothing needs an approval.
    """
    if place is None:
        yield
        return
    descriptor = os.open(safe(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another run uses an approval of this place just now"
            raise PermitError(what, where=str(place), hint="wait for its end, or `blackstart halt`") from None
        yield
    finally:
        os.close(descriptor)
