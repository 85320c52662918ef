"""Randomness that can be replayed.

Every use draws from a stream of its own, named, derived from the one seed.
"""

from __future__ import annotations

import hashlib
import random


def stream(seed: int, trial_id: str, name: str) -> random.Random:
    """Return the random stream `name` of a trial.

    It is the same for the same three arguments, unrelated to all others.
    A repetition (`R1#3`) shares the id of its trial, because its seed already differs.
    """
    return random.Random(number(seed, trial_id, name))


def number(seed: int, trial_id: str, name: str) -> int:
    """Return a 64-bit seed for a process or library of its own."""
    text = f"{seed}\0{trial_id.partition('#')[0]}\0{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
