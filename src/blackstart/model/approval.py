"""An approval for production as data: what two people agreed on, and what a run made of it."""

from __future__ import annotations

import msgspec

APPROVAL_SCHEMA = 1


class Approval(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be done to a target: the content that both people sign (R21, R23).

    `manifest_sha256` is of the manifest with its glue, `what` names each profile or scenario with its own
    hash. Nothing but `kinds` of faults, on `components` and `links`, disturbing `symbols` (None: all), not
    more than `concurrent` at once, their beginnings `interval_s` apart (chaos). From and until are wall-clock
    nanoseconds. `markets` are the exchanges in whose hours, and `margin_s` before and after them, nothing
    runs. `unsynchronised_clock`: both know that the kernel does not take this clock for synchronised.
    """

    schema: int = APPROVAL_SCHEMA
    target: str
    manifest_sha256: str
    what: dict[str, str]
    kinds: tuple[str, ...]
    components: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    symbols: tuple[str, ...] | None = None
    concurrent: int = 1
    interval_s: float = 0.0
    from_wall_ns: int
    until_wall_ns: int
    markets: tuple[str, ...]
    margin_s: float
    unsynchronised_clock: bool = False
    reason: str


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person's file says: the whole content, its hash, and when. Who it is, its owner says."""

    approval: Approval
    sha256: str
    signed_wall_ns: int


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """Whose signature counted: an account of the machine, and when it says that it signed."""

    uid: int
    name: str
    signed_wall_ns: int


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A use of an approval: who approved what, who used it when, and when all must be over.

    `ends_wall_ns` is the end of the approval or, where that is earlier, the margin before `opens` (market to
    wall-clock nanoseconds) opens next. `place` is the folder of the signatures.
    """

    approval: Approval
    sha256: str
    signers: tuple[Signer, ...]
    used_by: str
    used_wall_ns: int
    ends_wall_ns: int
    opens: dict[str, int]
    place: str
