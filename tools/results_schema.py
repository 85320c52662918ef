"""Write docs/reference/results.schema.json from the types of `results.json`."""
# ruff: noqa: INP001  # a folder of scripts, not a package

from __future__ import annotations

import json
from pathlib import Path

from blackstart.report.results_json import schema

FILE = Path(__file__).parents[1] / "docs" / "reference" / "results.schema.json"

if __name__ == "__main__":
    FILE.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
    print(FILE)
