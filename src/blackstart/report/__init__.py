"""Artefacts of a run: terminal, `results.json`, JUnit, HTML. They say what was found and decide nothing."""
