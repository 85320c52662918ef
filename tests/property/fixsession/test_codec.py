"""The codec against simplefix and against broken streams."""

import simplefix
from hypothesis import given
from hypothesis import strategies as st

from fixsession import Framer, Garbled, Message, decode, encode, format_utc, parse_utc
from fixsession.codec import write_fields

TAGS = st.integers(1, 9999).filter(
    lambda tag: tag not in {8, 9, 10, 35} and not 88 <= tag <= 96 and tag < 212
)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255), min_size=1, max_size=20)
FIELDS = st.lists(st.tuples(TAGS, VALUES), max_size=15)
TYPES = st.sampled_from(["0", "D", "8", "AE"])


@given(TYPES, FIELDS)
def test_encoding_is_that_of_simplefix(msg_type: str, fields: list[tuple[int, str]]) -> None:
    """For any fields the bytes are the same as simplefix writes."""
    other = simplefix.FixMessage()
    other.append_pair(8, "FIX.4.4")
    other.append_pair(35, msg_type)
    for tag, value in fields:
        other.append_pair(tag, value.encode("latin-1"))
    assert encode([(35, msg_type), *fields]) == other.encode()


@given(TYPES, FIELDS)
def test_decoding_is_that_of_simplefix(msg_type: str, fields: list[tuple[int, str]]) -> None:
    """For any message both decoders see the same fields in the same order."""
    raw = encode([(35, msg_type), *fields])
    parser = simplefix.FixParser()
    parser.append_buffer(raw)
    theirs = [(int(tag), value.decode("latin-1")) for tag, value in parser.get_message().pairs]
    ours = decode(raw)
    assert ours.pairs == theirs
    assert ours.raw == raw


@given(FIELDS, st.binary(max_size=50).map(lambda data: data.decode("latin-1")))
def test_data_fields_may_hold_any_byte(fields: list[tuple[int, str]], data: str) -> None:
    """A data field is taken by its length, delimiters included."""
    pairs = (
        [(35, "B"), *fields, (95, str(len(data))), (96, data), (58, "end")] if data else [(35, "B"), *fields]
    )
    assert decode(encode(pairs)).pairs[2:-1] == pairs


@given(st.lists(FIELDS, min_size=1, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_framing_does_not_depend_on_the_portions(
    many: list[list[tuple[int, str]]], portions: list[int]
) -> None:
    """Messages cut into any portions come out whole and in order."""
    frames = [encode([(35, "D"), *fields]) for fields in many]
    stream, framer, found, at, turn = b"".join(frames), Framer(), [], 0, 0
    while at < len(stream):
        size = portions[turn % len(portions)]
        found += framer.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == frames


GARBAGE = st.binary(max_size=60) | st.sampled_from(
    [
        b"8=FIX.4.4\x019=5\x0135=0\x0110=000\x01",
        b"8=FIX.4.4\x019=99\x01",
        b"8=FIX",
        b"8=FIX.4.4\x019=x",
        b"\x01",
    ]
)


@given(GARBAGE)
def test_sound_messages_behind_garbage_are_found(garbage: bytes) -> None:
    """Whatever comes before them, of three sound messages behind garbage the last is found."""
    sound = encode([(35, "D"), (58, "x" * 120)])
    found = list(Framer().feed(garbage + sound * 3))
    assert found[-1] == sound
    assert b"".join(item.data if isinstance(item, Garbled) else item for item in found) == garbage + sound * 3


@given(st.binary(max_size=200))
def test_no_bytes_break_the_framer(data: bytes) -> None:
    """Any bytes at all give frames and garbage, never an error, and nothing is lost but what still waits."""
    framer = Framer()
    found = b"".join(item.data if isinstance(item, Garbled) else item for item in framer.feed(data))
    assert data == found + framer._buffer


@given(st.integers(0, 4_102_444_800_000))
def test_timestamps_come_back(milliseconds: int) -> None:
    """A UTCTimestamp with milliseconds is read as what was written."""
    assert parse_utc(format_utc(milliseconds * 1_000_000)) == milliseconds * 1_000_000


@given(FIELDS)
def test_lookup_gives_the_first(fields: list[tuple[int, str]]) -> None:
    """`get` gives the first of several fields with one tag."""
    message = Message.of("D", fields)
    assert write_fields(message.pairs[1:]) == write_fields(fields)
    for tag, _ in fields:
        assert message.get(tag) == next(value for other, value in fields if other == tag)
