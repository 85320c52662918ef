"""When a connected peer counts as silent."""

from paperfirm.silence import Silence, told


def test_only_the_second_late_look_counts() -> None:
    """After a pause of our own the peer's words wait to be read: one late look is no silence, two are."""
    silence = Silence(0.5)
    assert not silence.lasts(10.0, 10.4)
    assert not silence.lasts(10.0, 13.0)
    assert not silence.lasts(13.0, 13.05)
    assert not silence.lasts(13.0, 13.6)
    assert silence.lasts(13.0, 13.7)
    assert told(13.0, 13.7) == "silent for 700 ms"
