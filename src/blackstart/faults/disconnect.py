"""Exchange disconnect: the oracle cuts the session and refuses logons for a while (R7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.faults.misbehave import Misbehave

if TYPE_CHECKING:
    from blackstart.model.scenario import FaultStep


class Disconnect(Misbehave):
    """The misbehaviour `disconnect`; `refuse_ms` is how long the exchange refuses logons.

    T0 is when the exchange closed its socket, by its own stamp.
    """

    name = "disconnect"

    def action(self, step: FaultStep) -> str:
        """See `Misbehave`."""
        del step
        return "disconnect"
