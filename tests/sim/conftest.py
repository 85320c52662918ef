"""What the simulated tests share."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "engine"), str(HERE / "chaos")]  # `engine_fakes` and `chaos_stage` are shared
