"""What a program says to whoever started it, beside its results. No torch."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """One line for the reader, on stderr."""
    print(line, file=sys.stderr, flush=True)
