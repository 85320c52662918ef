"""What the scheduler's figures say of a process that got nothing."""

from __future__ import annotations

from blackstart.host.schedule import Fare

MS = 1_000_000


def test_who_stood_ready_and_never_ran_has_waited_all_the_time() -> None:
    """The kernel counts a wait only when it is over: nothing run and nothing counted is not contentment."""
    before = Fare(500 * MS, 20 * MS, mono_ns=1_000 * MS, ready=True)
    grown = Fare(500 * MS, 20 * MS, mono_ns=2_000 * MS, ready=True).since(before)
    assert (grown.run_ns, grown.waited_ns, grown.got) == (0, 1_000 * MS, 0.0)


def test_who_slept_wanted_nothing() -> None:
    """Ready at the end only: nobody knows since when, and it may have slept until then."""
    before = Fare(500 * MS, 20 * MS, mono_ns=1_000 * MS)
    grown = Fare(500 * MS, 20 * MS, mono_ns=2_000 * MS, ready=True).since(before)
    assert (grown.waited_ns, grown.got) == (0, 1.0)


def test_who_ran_is_taken_at_the_kernels_word() -> None:
    """As soon as it ran, the waits before that are counted."""
    before = Fare(0, 0, mono_ns=0, ready=True)
    grown = Fare(10 * MS, 30 * MS, mono_ns=100 * MS).since(before)
    assert (grown.run_ns, grown.waited_ns, grown.got) == (10 * MS, 30 * MS, 0.25)


def test_what_no_tick_has_counted_yet_is_not_called_a_wait() -> None:
    """Ready is also who runs at that moment; the kernel adds its time up with the next tick."""
    before = Fare(500 * MS, 20 * MS, mono_ns=1_000 * MS, ready=True)
    assert Fare(500 * MS, 20 * MS, mono_ns=1_003 * MS, ready=True).since(before).got == 1.0
