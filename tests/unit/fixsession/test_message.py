from decimal import Decimal

import pytest

from fixsession import FixError, Message, decode, encode
from fixsession.codec import Framer, Garbled
from fixsession.message import number


def test_values_are_written_as_fix_wants_them() -> None:
    """Numbers without exponents, booleans as Y and N, bytes as they are, None not at all."""
    message = Message.of(
        "D", {1: "x", 2: 3, 3: True, 4: False, 5: b"\xe9", 6: Decimal("1E+2"), 7: 1e-7, 8001: None}
    )
    assert message.pairs[1:] == [
        (1, "x"),
        (2, "3"),
        (3, "Y"),
        (4, "N"),
        (5, "é"),
        (6, "100"),
        (7, "0.0000001"),
    ]


def test_value_of_another_kind_is_refused() -> None:
    """A value that has no FIX form is named with its field."""
    with pytest.raises(FixError, match="field 58: cannot write a object"):
        Message.of("D", {58: object()})


def test_groups_there_and_back() -> None:
    """A list of groups, of groups within them too, becomes counts and fields in order, and is read again."""
    inner = [[(523, "desk"), (803, "1")]]
    parties = [[(448, "ME"), (447, "D"), (802, inner)], {448: "YOU", 447: "D"}]
    message = decode(encode(Message.of("8", [(37, "1"), (453, parties), (55, "ALFA")]).pairs))
    assert message.pairs[3:-1] == [
        (37, "1"), (453, "2"), (448, "ME"), (447, "D"), (802, "1"), (523, "desk"), (803, "1"),
        (448, "YOU"), (447, "D"), (55, "ALFA"),
    ]  # fmt: skip
    found = message.group(453, (448, 447, 802, 523, 803))
    assert [group[448] for group in found] == ["ME", "YOU"]
    assert message.group(555, (600,)) == []


def test_group_with_a_wrong_count_is_refused() -> None:
    """Fewer groups than announced are not taken for all of them."""
    with pytest.raises(FixError, match="announces 3 groups, 1 follow"):
        Message.of("8", [(453, "3"), (448, "ME"), (55, "ALFA")]).group(453, (448,))


def test_missing_field_is_named() -> None:
    """`require` names type and field."""
    with pytest.raises(FixError, match="type 'D' has no field 11"):
        Message.of("D").require(11)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "٣", "9" * 19, " 1"])
def test_sequence_numbers_are_strict(text: str) -> None:
    """Only plain positive decimal numbers are sequence numbers."""
    assert number(text) is None
    assert Message.of("0", {34: text}).seq_num is None


@pytest.mark.parametrize(
    "body",
    [
        b"35=0\x01x=1\x01",
        b"35=0\x01=1\x01",
        b"35=0\x01058=1\x01",
        b"35=0\x0158\x01",
        b"35=0\x0195=9\x0196=a\x01",
    ],
)
def test_malformed_fields_are_refused(body: bytes) -> None:
    """A field that is no tag=value, or a data field of another length than announced, is no message."""
    with pytest.raises(FixError):
        decode(b"8=FIX.4.4\x019=%d\x01%s10=000\x01" % (len(body), body))


def test_too_large_body_length_does_not_swallow_what_follows() -> None:
    """A BodyLength beyond the message is noticed when the bytes where it leads are no CheckSum."""
    sound = encode([(35, "0"), (58, "x" * 50)])
    broken = b"8=FIX.4.4\x019=60\x0135=0\x0110=000\x01"
    found = list(Framer().feed(broken + sound))
    assert found[-1] == sound
    assert isinstance(found[0], Garbled)
    assert list(Framer().feed(b"8=FIX.4.4\x019=9999999\x0135=0\x01" + sound))[-1] == sound


def test_wrong_checksum_is_garbled() -> None:
    """A message of the right length whose CheckSum is wrong is no message; the one behind it is."""
    sound = encode([(35, "0"), (58, "x")])
    wrong = sound.replace(b"58=x", b"58=y")
    assert list(Framer().feed(wrong + sound)) == [Garbled("CheckSum (10) is wrong", wrong), sound]
