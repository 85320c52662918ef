"""The one error class of this package."""


class ExchangeError(Exception):
    """Invalid input: `what` is wrong, `where`, and what to do about it (`hint`)."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Keep the three parts apart, because HTTP answers carry them separately."""
        self.what = what
        self.where = where
        self.hint = hint
        place = f"{where}: " if where else ""
        advice = f" ({hint})" if hint else ""
        super().__init__(f"{place}{what}{advice}")
