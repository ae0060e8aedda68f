"""Seeds of torch's generators, one for each purpose, so that a new purpose shifts no other stream."""

from __future__ import annotations

import hashlib


def derived(seed: int, *purpose: object) -> int:
    """A generator's seed for one purpose, below 2⁵⁶.

    >>> derived(0, "shuffle", 1) == derived(0, "shuffle", 2)
    False
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")
