from __future__ import annotations

import pytest

from blackstart.errors import ManifestError
from blackstart.target.variables import expand, expand_all, names

VALUES = {"run": "/r", "port": {"a": 7}, "x": {"fix": {"port": 9}, "both": ["h:1", "h:2"]}}


def test_nested_names_are_replaced() -> None:
    """Dots lead into what a process told of itself, numbers into lists."""
    assert expand("{run}/{port.a}/{x.fix.port}/{x.both.1}", VALUES, where="k") == "/r/7/9/h:2"


def test_doubled_braces_stand_for_braces_and_others_are_left() -> None:
    """JSON and JMESPath may stand in a manifest."""
    assert expand("{{run}} {a: b} {} }}", VALUES, where="k") == "{run} {a: b} {} }}"


def test_a_string_that_is_one_variable_keeps_the_type() -> None:
    """A list of addresses reaches the glue as a list."""
    found = expand_all({"a": "{x.both}", "n": ["{port.a}"], "k": 1}, VALUES, where="k")
    assert found == {"a": ["h:1", "h:2"], "n": [7], "k": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{runn}", "did you mean `run`?"),
        ("{x.fix.prt}", "no `prt` in `x.fix` (did you mean `port`?"),
        ("{run.x}", "no `x` in `run`"),
        ("{package.no_such_package_here}", "is not installed"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_its_place(text: str, expected: str) -> None:
    """The error names the manifest's key, the part that is missing and what there is."""
    with pytest.raises(ManifestError) as caught:
        expand(text, VALUES, where="processes.a.command")
    assert expected in str(caught.value)
    assert str(caught.value).startswith("processes.a.command: ")


def test_packages_are_found_without_importing_them() -> None:
    """`{package.NAME}` is the package's folder."""
    assert expand("{package.msgspec}", {}, where="k").endswith("/msgspec")


def test_all_names_of_a_nested_value_are_found() -> None:
    """The check of a manifest sees variables wherever they stand."""
    assert list(names({"a": ["{run}", {"b": "{port.a}-{{no}}"}], "c": 3})) == ["run", "port.a"]
