"""Pure checkers: a trial's history in, verdicts out. Same history, same answer."""
