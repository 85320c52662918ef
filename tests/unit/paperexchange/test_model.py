import pytest

from paperexchange.model import average, format_average, format_price, parse_price


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("100.05", 1_000_500),
        ("100", 1_000_000),
        ("0.0001", 1),
        ("100.050000", 1_000_500),
        ("-2.5", -25_000),
        (".5", 5_000),
    ],
)
def test_price_texts_are_exact(text: str, ticks: int) -> None:
    """Decimal text becomes ticks without any rounding."""
    assert parse_price(text) == ticks


@pytest.mark.parametrize("text", ["", ".", "abc", "1.00001", "1e5", "1..2", "--1", "1-", "∞", "1 "])
def test_what_is_no_price_is_refused(text: str) -> None:
    """Text that is no decimal in steps of 0.0001 raises instead of guessing."""
    with pytest.raises(ValueError, match="price"):
        parse_price(text)


@pytest.mark.parametrize(
    ("ticks", "text"), [(1_000_500, "100.05"), (1_000_000, "100.00"), (1, "0.0001"), (-25_000, "-2.5")]
)
def test_prices_are_written_short_but_exact(ticks: int, text: str) -> None:
    """Formatting loses nothing: parsing gives the ticks back."""
    assert format_price(ticks) == text
    assert parse_price(text) == ticks


def test_average_price_is_rounded_to_the_nearest_tick() -> None:
    """Three fills at 1, 1 and 2 ticks average to 1.3333 ticks: 1 in JSON, eight places in FIX."""
    assert average(4, 3) == 1
    assert format_average(4, 3) == "0.00013333"
    assert average(0, 0) == 0
    assert format_average(0, 0) == "0"
