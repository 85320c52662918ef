"""Which gateway of the exchange the router tries."""

from paperfirm.router.gateways import BACKUP, PRIMARY, Gateways

SECOND = 1_000_000_000


def test_the_other_gateway_is_tried_only_after_a_while() -> None:
    """A short outage is the favourite's alone; a longer one lets the other be tried, and it may become it."""
    gateways = Gateways(backup=True, patience_ns=SECOND, now_ns=0)
    gateways.lost(5 * SECOND)
    assert gateways.other(6 * SECOND - 1) is None
    assert gateways.other(6 * SECOND) == BACKUP
    assert gateways.established(BACKUP)
    gateways.lost(9 * SECOND)
    assert gateways.favourite == BACKUP
    assert (gateways.other(9 * SECOND), gateways.other(10 * SECOND)) == (None, PRIMARY)
    assert not gateways.established(BACKUP)


def test_a_gateway_that_takes_no_orders_is_left_at_once() -> None:
    """There is no patience with a favourite that says it is not in force; with another there is no change."""
    gateways = Gateways(backup=True, patience_ns=SECOND, now_ns=0)
    gateways.not_in_force(BACKUP)
    assert gateways.other(1) is None
    gateways.not_in_force(PRIMARY)
    assert gateways.other(1) == BACKUP


def test_without_a_backup_there_is_no_other() -> None:
    """Unless it is wished for, nothing but the primary is ever tried."""
    gateways = Gateways(patience_ns=0, now_ns=0)
    gateways.not_in_force(PRIMARY)
    assert gateways.other(10**12) is None
