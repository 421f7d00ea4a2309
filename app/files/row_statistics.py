"""What is counted of good rows while they are checked: their lengths, and those that were there before."""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

# A row as compact JSON, its syntax for the template's marks: near enough for a forecast in most languages.
BYTES_PER_TOKEN = 4
STEPS_PER_DOUBLING = 4
REMEMBERED_ROWS = 1 << 20  # 16 MiB; of a longer file, some repeats go unseen


@dataclass
class RowLengths:
    """How many rows there are of which length. Lengths are rounded up to the next of four steps in each doubling."""

    rows_of: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, stored: Mapping[str, int]) -> "RowLengths":
        return cls(Counter({int(tokens): n_rows for tokens, n_rows in stored.items()}))

    def stored(self) -> dict[str, int]:
        return {str(tokens): n_rows for tokens, n_rows in sorted(self.rows_of.items())}

    def add(self, n_tokens: int) -> None:
        self.rows_of[rounded_up(n_tokens)] += 1

    def n_tokens(self, max_seq_length: int) -> int:
        """What one pass over the rows trains on, each cut at the limit."""
        return sum(min(tokens, max_seq_length) * n_rows for tokens, n_rows in self.rows_of.items())

    def n_cut(self, max_seq_length: int) -> int:
        return sum(n_rows for tokens, n_rows in self.rows_of.items() if tokens > max_seq_length)


def rounded_up(n_tokens: int) -> int:
    step = max(1, 1 << max(0, (n_tokens - 1).bit_length() - STEPS_PER_DOUBLING + 1))
    return -(-n_tokens // step) * step


def estimated_tokens(row: dict[str, Any]) -> int:
    n_bytes = len(orjson.dumps(row["messages"]))
    if row.get("tools"):
        n_bytes += len(orjson.dumps(row["tools"]))
    return -(-n_bytes // BYTES_PER_TOKEN)


class SeenRows:
    """Tells rows that were there before, in constant memory: each row takes the place of one seen long ago."""

    def __init__(self) -> None:
        self._hashes = array("q", bytes(8 * REMEMBERED_ROWS))
        self._lines = array("q", bytes(8 * REMEMBERED_ROWS))

    def line_of(self, row: bytes, line: int) -> int | None:
        """The line at which the row was last seen; from now on that is `line`."""
        hashed = hash(row)
        place = hashed % REMEMBERED_ROWS
        before = self._lines[place] if self._hashes[place] == hashed else 0
        self._hashes[place], self._lines[place] = hashed, line
        return before or None
