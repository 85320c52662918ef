"""Which gateway of the exchange to try. Pure: instants come in as arguments."""

from __future__ import annotations

from typing import Final

PRIMARY: Final = "primary"
BACKUP: Final = "backup"


class Gateways:
    """The gateway where the session was last is tried again and again, as if there were no other.

    Only when it has been away for `patience_ns`, or says that it is not in force, the other one is tried too.
    With one gateway (no `backup`) there never is another.
    """

    def __init__(self, *, backup: bool = False, patience_ns: int = 0, now_ns: int = 0) -> None:
        self.favourite = PRIMARY
        self.has_backup = backup
        self._patience_ns = patience_ns
        self._away_since_ns = now_ns
        self._unwelcome = False

    def established(self, gateway: str) -> bool:
        """Note that orders can be sent there; whether that is another gateway than before."""
        changed = gateway != self.favourite
        self.favourite = gateway
        self._unwelcome = False
        return changed

    def lost(self, now_ns: int) -> None:
        """Note that the session is gone."""
        self._away_since_ns = now_ns

    def not_in_force(self, gateway: str) -> None:
        """Note that this gateway takes no application messages."""
        self._unwelcome = self._unwelcome or gateway == self.favourite

    def other(self, now_ns: int) -> str | None:
        """Name the gateway to try besides the favourite, if it is time for that."""
        if not self.has_backup:
            return None
        if not self._unwelcome and now_ns - self._away_since_ns < self._patience_ns:
            return None
        return BACKUP if self.favourite == PRIMARY else PRIMARY
