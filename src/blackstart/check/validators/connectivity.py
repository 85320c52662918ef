"""Connectivity: every link to exchanges, database and queue is up (R54, source document 7.2).

Of the links to the exchange the exchange itself is asked; of the others there is only the target's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackstart.check.validators.documents import (
    document,
    earlier,
    fail,
    gone,
    raw,
    remark,
    shaped,
    unknown,
    validator,
)
from blackstart.check.validators.shapes import Connectivity, Link

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blackstart.check.facts import Facts
    from blackstart.model.verdict import Finding


@validator("connectivity")
def check(facts: Facts) -> Iterable[Finding]:
    """Look for links that are down, or not named any more."""
    links = document(facts, "connectivity", Connectivity).links
    if not links:
        yield unknown("nothing-to-compare", "the target names no links")
    before = yield from earlier(facts, "connectivity", Connectivity)
    old = [f"{link.kind} {link.name}" for link in before.links] if before else []
    yield from gone(old, [f"{link.kind} {link.name}" for link in links], "link")
    for link in links:
        if not link.connected:
            yield fail(
                "not-connected", f"{link.kind} {link.name} is not connected", link=link.name, kind=link.kind
            )
    own = sorted({link.kind for link in links if link.kind != "exchange"})
    if own:
        yield remark("own-word", f"links of kind {', '.join(own)}: the target's own word")
    yield from _sessions(facts, [link for link in links if link.kind == "exchange"])


def _sessions(facts: Facts, links: Sequence[Link]) -> Iterable[Finding]:
    """Ask the exchange: a link is up when its session was logged on before or after the target was read."""
    if not links:
        return
    raw(facts, "connectivity", side="oracle")
    read = [one for one in facts.states("oracle", "connectivity") if one.error is None]
    seen = [shaped(one.document, dict[str, bool], "oracle document 'connectivity'") for one in read]
    for link in links:
        answers = [sessions[link.name] for sessions in seen if link.name in sessions]
        if not answers and len(links) == 1:
            answers = [up for sessions in seen for up in sessions.values()]
        if not answers:
            text = f"exchange {link.name}: the exchange does not tell of that session"
            yield unknown("session-not-compared", text, link=link.name)
        elif link.connected and not any(answers):
            text = f"exchange {link.name} is said to be connected, but is not logged on at the exchange"
            yield fail("session-not-logged-on", text, link=link.name)
