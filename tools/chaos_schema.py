"""Write docs/reference/chaos.schema.json from the types of `chaos.json`."""
# ruff: noqa: INP001  # a folder of scripts, not a package

from __future__ import annotations

from pathlib import Path

import msgspec

from blackstart.chaos.model import ChaosResult

FILE = Path(__file__).parents[1] / "docs" / "reference" / "chaos.schema.json"

if __name__ == "__main__":
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(msgspec.json.schema(ChaosResult))) + b"\n")
    print(FILE)
