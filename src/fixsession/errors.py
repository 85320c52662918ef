"""The one error class of the package."""

from __future__ import annotations


class FixError(Exception):
    """Something given to the package is invalid; the text says what, where and what to do.

    Bytes from a counterparty never raise it in a `Session`: they become effects, or a Reject on the wire.
    """
