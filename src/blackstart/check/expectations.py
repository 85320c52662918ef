"""What a scenario expects to see of the target: alerts, fall-backs, retries (source document, section 4).

A scenario names signs (`checkpoint-rejected`); the manifest's `[signs]` say how the target tells them. The
same watch serves the running trial, which waits for what is still to come, and the final judgement.

What must `never` be seen, or need not be seen at all (`at_least = 0`) and was not, has to be looked for:
where the target told nothing at all from that moment on, nobody could have told it. Under a fault that only
`degrades` a silent log is no failure: the finding says so.

A sign counts when it happened. Where its stamp cannot be right (`check.stamps.credible`) it is judged both by
the stamp and by when it reached us; do the two not agree, nobody knows (`stamp-not-credible`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from blackstart.check.stamps import credible
from blackstart.model.match import matches
from blackstart.model.record import Injected, OracleSeen, Record, Reverted, SignalSeen, Witnessed
from blackstart.model.verdict import CheckResult, Finding, Verdict, conclude

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blackstart.check.facts import Facts
    from blackstart.model.manifest import Manifest
    from blackstart.model.scenario import Expectation, Plan

NS_PER_S, NS_PER_MS = 1_000_000_000, 1_000_000
_MISSED = "expectation-missed"
_PREMISE = "premise-not-met"


class ExpectationWatch:
    """One expectation, fed every record of a trial in order."""

    def __init__(
        self, expected: Expectation, manifest: Manifest, *, faults: int, silence: bool = False
    ) -> None:
        self.expected = expected
        self.declared = expected.oracle is not None or expected.signal in manifest.signs
        reason = manifest.signs.get(expected.signal or "")
        self.ruled_out = reason if isinstance(reason, str) else None
        if expected.given is not None and expected.given not in manifest.operations:
            self.ruled_out = f"not looked for, the manifest has no operation `{expected.given}`"
        self._faults = faults
        self._silence = silence
        self._heard: list[tuple[int, str]] = []
        self._told = _told(expected, manifest)
        self._seen: list[tuple[int, int]] = []
        self._incredible: list[SignalSeen] = []
        self._undos: set[str] = set()
        self._last_undos: set[str] = set()
        self._until_ns: int | None = None
        self._since_ns = 0 if expected.after == "start" else None

    @classmethod
    def of(cls, plan: Plan, manifest: Manifest) -> list[ExpectationWatch]:
        """Watch everything that the plan's scenario expects."""
        silence = plan.scenario.degrades
        return [cls(one, manifest, faults=len(plan.faults), silence=silence) for one in plan.scenario.expect]

    def feed(self, record: Record) -> None:
        """Take in one record."""
        if isinstance(record, Injected):
            self._injected(record)
        elif isinstance(record, Reverted):
            self._taken_back(record)
        elif isinstance(record, SignalSeen | OracleSeen):
            if self._told(record):
                self._seen.append((record.mono_ns, _moment(record)))
                if _moment(record) != record.mono_ns and isinstance(record, SignalSeen):
                    self._incredible.append(record)
            if isinstance(record, SignalSeen) and (self.expected.never or self.expected.at_least == 0):
                self._heard.append((_moment(record), record.source))

    def seen(self, *, as_stamped: bool = False) -> list[int]:
        """When it was seen, from the moment on at which it counts, in time.

        What is stamped as cannot be is taken for seen when it reached us, unless `as_stamped`.
        """
        moments = (stamped if as_stamped else at for stamped, at in self._seen)
        return [ns for ns in moments if self._counts(ns)]

    def _counts(self, ns: int) -> bool:
        if self._since_ns is None or ns < self._since_ns:
            return False
        within_s = self.expected.within_s
        in_time = within_s is None or ns <= self._since_ns + round(within_s * NS_PER_S)
        return in_time and (self._until_ns is None or ns <= self._until_ns)

    def pending(self, now_ns: int) -> bool:
        """Whether it may still come: then a trial is not over yet."""
        if self.expected.never or not self.declared or self.ruled_out is not None:
            return False
        if len(self.seen()) >= self.expected.at_least:
            return False
        if self._until_ns is not None and now_ns > self._until_ns:
            return False
        within_s = self.expected.within_s
        return self._since_ns is None or within_s is None or now_ns <= self._since_ns + within_s * NS_PER_S

    def finding(self) -> Finding:
        """Judge it at the end."""
        expected, count = self.expected, len(self.seen())
        name = expected.signal or expected.oracle
        if self.ruled_out is not None:
            return _finding(Verdict.PASS, "expectation-not-applicable", f"{name}: {self.ruled_out}")
        if self._since_ns is None:
            text = f"{expected.why}: the moment from which it counts ({expected.after}) never came"
            return _finding(Verdict.UNKNOWN, "expectation-not-judged", text)
        if expected.before is not None and self._until_ns is None:
            text = f"{expected.why}: the moment until which it counts ({expected.before}) never came"
            return _finding(Verdict.UNKNOWN, "expectation-not-judged", text)
        if not self.declared:
            text = f"{expected.why}: the manifest does not say how the target tells `{name}` ([signs])"
            return _finding(Verdict.UNKNOWN, "expectation-not-judged", text)
        found = self._counted(f"{name} seen {count} time{'' if count == 1 else 's'}", count)
        stamped = len(self.seen(as_stamped=True))
        return found if self._counted("", stamped).verdict is found.verdict else self._unsure(found, stamped)

    def _unsure(self, found: Finding, stamped: int) -> Finding:
        """Say that it hangs on stamps that cannot be right."""
        worst = max(self._incredible, key=lambda one: abs(one.mono_ns - one.seen_mono_ns))
        text = (
            f"{found.text}; {stamped} by the target's stamps, but {worst.source}: {worst.event} is stamped "
            f"{(worst.mono_ns - worst.seen_mono_ns) / NS_PER_MS:+,.1f} ms from when it was seen"
        )
        return _finding(Verdict.UNKNOWN, "stamp-not-credible", text)

    def _injected(self, record: Injected) -> None:
        undos = {undo.id for undo in record.receipt.undo}
        first, last = record.step == 0, record.step + 1 == self._faults
        self._undos |= undos
        if last:
            self._last_undos = undos
        if (self.expected.after == "fault" and first) or (self.expected.after == "then" and last):
            receipt = record.receipt  # it took effect within the uncertainty before t0
            early_ns = 0 if self.expected.never else receipt.uncertainty_ns
            self._since_ns = receipt.t0_mono_ns - early_ns
        if self.expected.before == "then" and last:
            self._until_ns = record.receipt.t0_mono_ns

    def _taken_back(self, record: Reverted) -> None:
        """Count from the last fault's end, or to the first one's.

        What ends with the trial, the target's processes, is no fault.
        """
        if record.undo_id not in self._undos or record.mono_ns is None:
            return
        if self.expected.after == "revert" and record.undo_id in self._last_undos:
            self._since_ns = record.mono_ns
        if self.expected.before == "revert":
            self._until_ns = min(record.mono_ns, self._until_ns or record.mono_ns)

    def _counted(self, said: str, count: int) -> Finding:
        expected = self.expected
        most = 0 if expected.never else expected.at_most
        if most is not None and count > most:
            return self._broken("expectation-exceeded", f"{said}, at most {most} expected")
        if not expected.never and count < expected.at_least:
            return self._broken(_MISSED, f"{said}, at least {expected.at_least} expected")
        if count == 0 and expected.signal is not None:
            return self._looked(said)
        return _finding(Verdict.PASS, "expectation-met", f"{expected.why}: {said}")

    def _broken(self, code: str, said: str) -> Finding:
        """Blame the target, or where it is a premise nobody: then the trial is not the one it should be."""
        text = f"{self.expected.why}: {said}{self._window()}"
        if self.expected.premise:
            return _finding(Verdict.UNKNOWN, _PREMISE, text)
        return _finding(Verdict.FAIL, code, text)

    def _window(self) -> str:
        ends = {"then": "before the last fault", "revert": "before the first fault was taken back"}
        return f" {ends[self.expected.before]}" if self.expected.before else ""

    def _looked(self, said: str) -> Finding:
        """Say in how much it was looked for; a name that nobody ever says cannot be told from one unsaid."""
        heard = Counter(source for ns, source in self._heard if self._counts(ns))
        parts = [f"{count} event{'' if count == 1 else 's'} of {source}" for source, count in heard.items()]
        where = ", ".join(parts) or "nothing, for the target told of nothing"
        text = f"{self.expected.why}: {said}{self._window()}, looked for in {where} in that time"
        if not heard and not self._silence:
            return _finding(Verdict.UNKNOWN, "not-looked", text)
        return _finding(Verdict.PASS, "expectation-met", text)


def check(facts: Facts) -> CheckResult:
    """Judge everything that the scenario expects; a scenario that expects nothing has nothing to say.

    Of a fault that did not bite nothing can be expected, nor where a premise does not hold; and for what was
    missed when the trial was broken off nobody waited: UNKNOWN.
    """
    watches = ExpectationWatch.of(facts.plan, facts.manifest)
    for record in facts.records:
        for watch in watches:
            watch.feed(record)
    bit = [one.witness.bit is True for one in facts.all(Witnessed)]
    told = [watch.finding() for watch in watches]
    if not all(bit) or len(bit) != len(facts.plan.faults):
        told = [_not_judged(one, "the fault did not bite") for one in told]
    elif any(one.code == _PREMISE for one in told):
        told = [_not_judged(one, "the trial is not the one it should be") for one in told]
    elif facts.stage("observed") is None:
        why = "the trial was broken off before it was watched to the end"
        told = [_not_judged(one, why) if one.code == _MISSED else one for one in told]
    return conclude("expectations", told)


def _not_judged(finding: Finding, why: str) -> Finding:
    if finding.verdict is not Verdict.FAIL:
        return finding
    return _finding(Verdict.UNKNOWN, "expectation-not-judged", f"{finding.text}; but {why}")


def undeclared(manifest: Manifest, expected: Sequence[Expectation]) -> Iterable[str]:
    """Name the signs that a scenario expects and the manifest says nothing about."""
    asked = (one for one in expected if one.given is None or one.given in manifest.operations)
    wanted = (one.signal for one in asked if one.signal is not None)
    return dict.fromkeys(name for name in wanted if name not in manifest.signs)


def _moment(record: SignalSeen | OracleSeen) -> int:
    """Say when it happened; where its own stamp cannot be right, when it reached us."""
    return record.mono_ns if isinstance(record, OracleSeen) or credible(record) else record.seen_mono_ns


def _told(expected: Expectation, manifest: Manifest) -> Callable[[SignalSeen | OracleSeen], bool]:
    more = matches(expected.where)
    if expected.oracle is not None:
        return lambda r: isinstance(r, OracleSeen) and r.event == expected.oracle and more(r.fields)
    signs = [(one.event, matches(one.where)) for one in manifest.told(expected.signal)]
    return lambda record: (
        isinstance(record, SignalSeen)
        and any(record.event == event and test(record.fields) for event, test in signs)
        and more(record.fields)
    )


def _finding(verdict: Verdict, code: str, text: str) -> Finding:
    return Finding(verdict=verdict, code=code, text=text)
