"""JMESPath with what foreign documents need besides: `items(object)` and `ticks(price)`."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError

from blackstart.errors import TargetError

TICKS_PER_UNIT = 10_000


class _Functions(functions.Functions):
    """The library finds functions by the names of these methods."""

    @functions.signature({"types": ["object"]})
    def _func_items(self, value: dict[str, Any]) -> list[list[Any]]:
        return [[key, item] for key, item in value.items()]

    @functions.signature({"types": ["number", "string", "null"]})
    def _func_ticks(self, value: float | str | None) -> int | None:
        """Units of money, as a number or a decimal text, to whole ticks of 0.0001."""
        return None if value is None else round(Decimal(str(value)) * TICKS_PER_UNIT)


_OPTIONS = jmespath.Options(custom_functions=_Functions())


def search(expression: str | None, document: Any, *, where: str) -> Any:
    """Return what an expression yields (without one: the document). Raises TargetError naming `where`."""
    if expression is None:
        return document
    try:
        return jmespath.search(expression, document, _OPTIONS)
    except (JMESPathError, InvalidOperation, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TargetError(f"`{expression}` cannot be applied: {reason}", where=where) from None
