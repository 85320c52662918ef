"""Drop copy: every report (or only fills) of an account on a session of its own (FIX 24)."""

import asyncio
from collections.abc import Callable

from fixsession.clock import Now
from fixsession.effects import Deliver
from fixsession.message import Message
from paperexchange.config import AccountConfig
from paperexchange.gateway.host import SessionHost
from paperexchange.gateway.orderentry import refuse
from paperexchange.gateway.wire import Arrival


class DropCopy:
    """Sends copies with the session's own numbers; takes no application messages."""

    host: SessionHost

    def __init__(self, settings: AccountConfig, clock: Callable[[], Now]) -> None:
        """Copy what `settings` says; it also says whether copies are kept while nobody listens."""
        self._settings = settings
        self._clock = clock

    def send(self, message: Message, now: Now, *, is_fill: bool) -> None:
        """Copy a report."""
        wanted = self._settings.drop_copy
        if wanted == "off" or (wanted == "fills" and not is_fill):
            return
        if not self._settings.drop_copy_buffered and not self.host.logged_on:
            return
        if self._settings.drop_copy_lag_ms:
            asyncio.get_running_loop().call_later(
                self._settings.drop_copy_lag_ms / 1000, lambda: self.host.send(message, self._clock())
            )
        else:
            self.host.send(message, now)

    def deliver(self, host: SessionHost, effect: Deliver, arrival: Arrival, now: Now) -> bool:
        """Refuse every application message."""
        del arrival
        refuse(host, effect.message, 3, "a drop copy takes no application messages", now)
        return True

    def logged_on(self, host: SessionHost, now: Now) -> None:
        """Do nothing: the member sees the gap in the numbers and asks for what it missed."""

    def gone(self, host: SessionHost, reason: str, now: Now) -> None:
        """Nothing to do."""
