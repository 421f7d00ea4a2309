"""Prefixed ids that sort by the moment they were made."""

import os
import threading
import time

SEPARATORS = {"file": "-", "ftjob": "-", "ftevent": "-", "ftckpt": "-", "chatcmpl": "-"}

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
RANDOM_BITS = 80


class _Ulids:
    """ULIDs (github.com/ulid/spec) in lower case, those of one millisecond in the order in which they were made.

    Ours, since every request needs one: a fifth of what a library takes for it.
    """

    def __init__(self) -> None:
        self._last = 0
        self._turn = threading.Lock()

    def next(self) -> str:
        value = (time.time_ns() // 1_000_000 << RANDOM_BITS) | int.from_bytes(os.urandom(RANDOM_BITS // 8), "big")
        with self._turn:
            if value >> RANDOM_BITS <= self._last >> RANDOM_BITS:  # also when the clock was put back
                value = self._last + 1
            self._last = value
        return "".join([PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


_ulids = _Ulids()


def new_id(prefix: str) -> str:
    """`file-01k…`, `resp_01k…`: OpenAI's separators, a ULID behind them."""
    return f"{prefix}{SEPARATORS.get(prefix, '_')}{_ulids.next()}"
