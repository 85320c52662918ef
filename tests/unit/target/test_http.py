from __future__ import annotations

import pytest

from blackstart.errors import TargetError
from blackstart.target.http import Address, Answer, _whole_chunks, decode


def test_an_address_is_taken_apart() -> None:
    """Default ports, paths and queries are kept."""
    assert Address.of("http://h/a b?c=1") == Address("h", 80, "/a%20b?c=1", secure=False)
    assert Address.of("https://h:9") == Address("h", 9, "/", secure=True)


def test_anything_but_http_is_refused() -> None:
    """A wrong address is told as such, not as a failed connection."""
    with pytest.raises(TargetError, match="not an http"):
        Address.of("redis://h")


def test_chunks_are_whatever_the_reads_were() -> None:
    """Chunked coding is undone wherever the reads happen to cut it."""
    message = b"3\r\nabc\r\n5;x=y\r\nde\r\nf\r\n0\r\n\r\n"
    for cut in range(len(message)):
        buffer = bytearray(message[:cut])
        first, ended = _whole_chunks(buffer)
        buffer += message[cut:]
        if not ended:
            second, ended = _whole_chunks(buffer)
            first += second
        assert (first, ended) == (b"abcde\r\nf", True)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(503, b'{"error": "no primary", "hint": "wait"}'), "HTTP 503 no primary\n  → wait"),
        (Answer(500, b"oops"), "HTTP 500 oops"),
        (Answer(200, b"<html>"), "not JSON"),
    ],
)
def test_bad_answers_say_what_came(answer: Answer, expected: str) -> None:
    """The server's own words are passed on."""
    with pytest.raises(TargetError) as caught:
        decode(answer, "http://h/x")
    assert expected in str(caught.value)


def test_an_empty_answer_is_nothing() -> None:
    """204 has no document."""
    assert decode(Answer(204, b""), "http://h") is None
